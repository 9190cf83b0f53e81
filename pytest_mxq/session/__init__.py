"""What pytest calls once the plugin is active."""
