"""Read-only views of a run for people and programs: snapshots, digest, exports, replay; nothing here changes the run."""
