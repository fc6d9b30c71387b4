"""What every test may use: nothing here patches what is measured."""
