"""From the command line and the markers to plans: settings, options, cases, requirements; nothing is built."""
