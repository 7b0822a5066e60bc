"""Event sinks and result printers: what people and scripts see."""
