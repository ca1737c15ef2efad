"""SCIM without I/O: schemas, filters, paths, changes of resources, and what is shown of them (RFC 7643, RFC 7644)."""
