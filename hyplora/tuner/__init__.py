"""The PEFT tuner, split as PEFT splits its own: config, layer, model, registration."""
