"""The wire contract in types: bytes to lines, lines to requests, requests to typed params, results to lines.

Pure: nothing here reads a socket or a clock. `framing` cuts a byte stream into lines and a line into an envelope;
`messages` has one struct for the params of each method and one for each result; `records` are what a producer
says of an inference or an error. Both the daemon and the client speak through this package and nothing else.
"""
