"""Where probes of models and of API clients may go, as of the inventory and the configuration."""
