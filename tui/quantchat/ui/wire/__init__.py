"""What goes to the terminal: only the cells that differ from what it shows already.

`hook` is the only module that knows Textual's private parts. `styles`, `cells`, `pen`, `scroll` and `painter` turn
frames into the fewest bytes; `outlet` writes them without ever holding up the event loop; `link` and `pace` say how
often.
"""
