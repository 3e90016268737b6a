"""What each verb of the command line takes, and calls; modules are imported when it is called."""
