"""What the tests stand on: real services, real desktops, and parts that break on command."""
