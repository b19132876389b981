"""What `hildaft doctor` looks at: each module measures one thing and says what to do."""
