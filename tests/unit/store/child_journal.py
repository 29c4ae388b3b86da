"""Streams numbered words into a journal until it is killed; prints the number of each when it has been handed over.

With a second argument every third word is thought, the others are said.
"""

import sys
import time
from pathlib import Path

from quantchat.domain.chat import Message, utc_now
from quantchat.store.journal import Journal

message = Message(id="answer", role="assistant", text="", created=utc_now(), parent="question")
journal = Journal(Path(sys.argv[1]), message)
both = len(sys.argv) > 2
number = 0
while True:
    journal.append(f"{number} ", "thinking" if both and number % 3 == 0 else "answer")
    print(number, time.monotonic(), flush=True)
    number += 1
    time.sleep(0.005)
