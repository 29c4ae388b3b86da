"""Sessions as files for people and other programs: `formats` says what is written, `reading` what is read."""
