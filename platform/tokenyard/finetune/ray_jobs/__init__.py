"""The part of Ray's Jobs API with which a tenant submits `tokenyard-train`: no code of a tenant ever runs."""
