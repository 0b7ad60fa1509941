"""``make mutation``: do the tests notice when the code is changed? See docs/mutation.md."""
