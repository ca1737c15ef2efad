module sidecar.example/openfga

go 1.26

require github.com/openfga/openfga v1.22.1
