// Azurite uses it only where telemetry is on: --disableTelemetry.
