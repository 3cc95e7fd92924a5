"""Restricted access (the paper, section 3.2): models that only return predictions.

A generator that was trained with another model is put in front of such a black box. Images go in, class numbers come
out; the box reveals no weight, logit or gradient. Import from the modules (`neuralfuse.blackbox.client`, ...):

    box         what a black box is, and one made of a Python function
    onnxfile    one made of an ONNX file
    client      one behind an HTTP endpoint
    evaluation  accuracy of black boxes, without and with a generator
    chip        a model on a simulated chip as a black box
    server      puts any black box behind HTTP
"""
