"""The command line `hyplora`: submits jobs, follows them and fetches what they made."""
