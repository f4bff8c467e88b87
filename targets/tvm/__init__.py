"""The TVM backend: native code from schedules of our own, no engine and no tuning."""
