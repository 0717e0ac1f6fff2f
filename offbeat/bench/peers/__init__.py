"""``offbeat bench peers``: other libraries and offbeat interleaved on one machine; nothing of theirs is kept here."""
