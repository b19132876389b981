"""What `hildaft doctor` looks at, one module per part; each gives findings with a cure."""
