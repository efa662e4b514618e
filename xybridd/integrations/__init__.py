"""Records of inferences that an app need not write: libraries that run models, watched from outside.

    xybridd.instrument("onnxruntime")

`register` has the table of what can be watched and the two calls of the user. Each library has one file, imported
only when asked for; it says which functions of the library to wrap (`wrapping`) and how to read what they were given
and what they returned (a `Call` of `calls`). Nothing here knows more of xybridd than its client.

The rule of all of them: the call that instruments may raise; a call that is instrumented returns and raises what it
would without us, and is recorded once. Nothing of what a model was asked or answered is read, only counted.
"""
