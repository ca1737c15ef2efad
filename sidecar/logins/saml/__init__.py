"""SAML 2.0: sign people in at an identity provider, and out again."""
