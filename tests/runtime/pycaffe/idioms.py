"""How scripts use pycaffe, as small programs in our own words; test_idioms.py runs each of them.

They run in a folder with the files that test_idioms.py writes, with `caffe`, `np`, `L`, `P` and
`close` (numpy's assert_allclose) as names.
"""

from __future__ import annotations

IDIOMS: dict[str, str] = {}


def _idioms(origin: str, **programs: str) -> None:
    IDIOMS.update({f"{origin}: {name.replace('_', ' ')}": text for name, text in programs.items()})


_idioms(
    "classification notebook",
    load_with_keyword_weights="""
net = caffe.Net("deploy.prototxt", caffe.TEST, weights="weights.caffemodel")
assert net.params["conv1"][0].data.any()
""",
    load_in_the_former_order="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
assert net.params["conv1"][0].data.any()
""",
    mean_pixel_of_the_mean_image="""
import os
mu = np.load(os.path.join(caffe.__path__[0], "imagenet", "ilsvrc_2012_mean.npy"))
mu = mu.mean(1).mean(1)
assert [(c, int(m)) for c, m in zip("BGR", mu)] == [("B", 104), ("G", 116), ("R", 122)]
""",
    transformer_and_one_image="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
transformer.set_transpose("data", (2, 0, 1))
transformer.set_mean("data", np.array([104.0, 117.0, 123.0]))
transformer.set_raw_scale("data", 255)
transformer.set_channel_swap("data", (2, 1, 0))
image = caffe.io.load_image("cat.jpg")
transformed = transformer.preprocess("data", image)
net.blobs["data"].data[...] = transformed
prob = net.forward()["prob"][0]
assert prob.argsort()[::-1][:2].shape == (2,)
close(transformer.deprocess("data", transformed), caffe.io.resize_image(image, (24, 24)), atol=1e-4)
""",
    batch_of_fifty_by_reshape="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
net.blobs["data"].reshape(50, 3, 24, 24)
net.blobs["data"].data[...] = 1.5
assert net.forward()["prob"].shape == (50, 5)
""",
    shapes_of_blobs_and_parameters="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
blobs = [(name, blob.data.shape) for name, blob in net.blobs.items()]
assert blobs[1] == ("conv1", (2, 4, 24, 24))
params = [(name, p[0].data.shape, p[1].data.shape) for name, p in net.params.items()]
assert params[0] == ("conv1", (4, 3, 3, 3), (4,))
""",
    filters_as_pictures="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
data = net.params["conv1"][0].data.transpose(0, 2, 3, 1)
data = (data - data.min()) / (data.max() - data.min())
assert np.pad(data, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="constant").shape == (4, 4, 4, 3)
""",
    features_of_one_image_in_a_batch="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
net.blobs["data"].data[...] = np.random.rand(2, 3, 24, 24)
net.forward()
assert net.blobs["conv1"].data[0, :3].shape == (3, 24, 24)
feat = net.blobs["fc6"].data[0]
assert np.histogram(feat.flat[feat > 0], bins=10)[0].sum() == (feat > 0).sum()
""",
    own_mode_and_device="""
caffe.set_device(0)
caffe.set_mode_gpu()
caffe.set_mode_cpu()
caffe.Net("deploy.prototxt", caffe.TEST)
""",
)

_idioms(
    "lenet notebook",
    net_written_in_python="""
def lenet(lmdb, batch_size):
    n = caffe.NetSpec()
    n.data, n.label = L.Data(batch_size=batch_size, backend=P.Data.LMDB, source=lmdb,
                             transform_param=dict(scale=1.0 / 255), ntop=2)
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=4, weight_filler=dict(type="xavier"))
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.fc1 = L.InnerProduct(n.pool1, num_output=8, weight_filler=dict(type="xavier"))
    n.relu1 = L.ReLU(n.fc1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=4, weight_filler=dict(type="xavier"))
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    return n.to_proto()
with open("lenet.prototxt", "w") as f:
    f.write(str(lenet("images_lmdb", 4)))
net = caffe.Net("lenet.prototxt", caffe.TRAIN)
assert net.forward()["loss"] > 0
assert net.blobs["data"].data.max() <= 1
""",
    solver_without_the_bug_of_notebooks="""
solver = None
solver = caffe.SGDSolver("solver.prototxt")
assert [(k, v.data.shape) for k, v in solver.net.blobs.items()][0] == ("data", (4, 3, 24, 24))
""",
    forward_of_train_and_test_nets="""
solver = caffe.get_solver("solver.prototxt")
assert solver.net.forward()["loss"] > 0
assert solver.test_nets[0].forward()["loss"] > 0
assert solver.net.blobs["label"].data[:8].dtype == np.float32
""",
    one_step_and_its_gradient="""
solver = caffe.SGDSolver("solver.prototxt")
solver.step(1)
assert solver.net.params["conv1"][0].diff[:, 0].reshape(2, 2, 3, 3).any()
""",
    own_training_loop="""
solver = caffe.SGDSolver("solver.prototxt")
losses = np.zeros(6)
for it in range(6):
    solver.step(1)
    losses[it] = solver.net.blobs["loss"].data
    solver.test_nets[0].forward(start="conv1")
    if it % 3 == 0:
        correct = 0
        for _ in range(2):
            solver.test_nets[0].forward()
            correct += sum(solver.test_nets[0].blobs["fc8"].data.argmax(1)
                           == solver.test_nets[0].blobs["label"].data)
assert losses[-1] < losses[0] and correct >= 0
""",
    solver_prototxt_by_messages="""
from caffe.proto import caffe_pb2
s = caffe_pb2.SolverParameter()
s.random_seed = 7
s.train_net = "train.prototxt"
s.test_net.append("train.prototxt")
s.test_interval = 500
s.test_iter.append(1)
s.max_iter = 10
s.type = "SGD"
s.base_lr = 0.01
s.momentum = 0.9
s.weight_decay = 5e-4
s.lr_policy = "inv"
s.gamma, s.power = 0.0001, 0.75
s.display, s.snapshot = 1000, 5000
s.snapshot_prefix = "own"
s.solver_mode = caffe_pb2.SolverParameter.GPU
with open("own_solver.prototxt", "w") as f:
    f.write(str(s))
solver = caffe.get_solver("own_solver.prototxt")
solver.step(1)
assert solver.iter == 1
""",
    every_type_of_solver="""
for name in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"):
    assert issubclass(getattr(caffe, name + "Solver"), caffe._caffe.Solver)
""",
)

_idioms(
    "fine-tuning notebook",
    weights_into_a_solver="""
solver = caffe.get_solver("solver.prototxt")
solver.net.copy_from("weights.caffemodel")
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
assert np.array_equal(solver.net.params["fc6"][0].data, net.params["fc6"][0].data)
""",
    two_solvers_step_by_step="""
pair = [("pretrained", caffe.get_solver("solver.prototxt")),
        ("scratch", caffe.get_solver("solver.prototxt"))]
pair[0][1].net.copy_from("weights.caffemodel")
loss = {name: np.zeros(2) for name, _ in pair}
for it in range(2):
    for name, s in pair:
        s.step(1)
        loss[name][it] = s.net.blobs["loss"].data.copy()
assert loss["pretrained"][0] != loss["scratch"][0]
""",
    weights_in_a_temporary_folder="""
import os, tempfile
solver = caffe.get_solver("solver.prototxt")
filename = os.path.join(tempfile.mkdtemp(), "weights.%s.caffemodel" % "own")
solver.net.save(filename)
assert caffe.Net("train.prototxt", filename, caffe.TEST)
""",
    frozen_layers_by_param="""
frozen_weight, learned = dict(lr_mult=0), dict(lr_mult=1, decay_mult=1)
n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[1, 3, 8, 8]))
n.conv = L.Convolution(n.data, kernel_size=3, num_output=2, param=[frozen_weight, learned],
                       weight_filler=dict(type="gaussian", std=0.01))
layer = n.to_proto().layer[1]
assert [p.lr_mult for p in layer.param] == [0, 1]
""",
    dummy_data_in_the_place_of_data="""
dummy = L.DummyData(shape=dict(dim=[1, 3, 12, 12]))
conv = L.Convolution(dummy, kernel_size=3, num_output=2)
with open("dummy.prototxt", "w") as f:
    f.write(str(caffe.to_proto(conv)))
assert caffe.Net("dummy.prototxt", caffe.TEST).blobs["Convolution1"].shape[1] == 2
""",
    layers_in_a_loop_by_item="""
n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[1, 3, 8, 8]))
top = n.data
for i in range(3):
    n["conv%d" % i] = top = L.Convolution(top, kernel_size=3, pad=1, num_output=2)
    n["relu%d" % i] = top = L.ReLU(top, in_place=True)
assert list(n.tops) == ["data", "conv0", "relu0", "conv1", "relu1", "conv2", "relu2"]
assert n["conv1"] is n.conv1
""",
    accuracy_of_a_test_net="""
solver = caffe.get_solver("solver.prototxt")
net = caffe.Net("train.prototxt", caffe.TEST)
net.share_with(solver.net)
accuracy = sum(net.forward()["accuracy"] for _ in range(3)) / 3
assert 0 <= accuracy <= 1
""",
)

_idioms(
    "logistic regression notebook",
    hdf5_files_and_a_net_of_them="""
import h5py
x, y = np.random.rand(12, 4).astype(np.float32), np.arange(12, dtype=np.float32) % 2
with h5py.File("train.h5", "w") as f:
    f["data"], f["label"] = x, y
    f.create_dataset("more", data=x, compression="gzip", compression_opts=1)
with open("train.txt", "w") as f:
    f.write("train.h5\\n")
n = caffe.NetSpec()
n.data, n.label = L.HDF5Data(batch_size=6, source="train.txt", ntop=2)
n.ip1 = L.InnerProduct(n.data, num_output=2, weight_filler=dict(type="xavier"))
n.accuracy = L.Accuracy(n.ip1, n.label)
n.loss = L.SoftmaxWithLoss(n.ip1, n.label)
with open("logreg.prototxt", "w") as f:
    f.write(str(n.to_proto()))
net = caffe.Net("logreg.prototxt", caffe.TEST)
net.forward()
assert np.array_equal(net.blobs["data"].data, x[:6])
""",
    solve_and_mean_accuracy="""
caffe.set_mode_cpu()
solver = caffe.get_solver("solver.prototxt")
solver.solve()
accuracy = 0
batch_size = solver.test_nets[0].blobs["data"].num
for i in range(int(8 / batch_size)):
    solver.test_nets[0].forward()
    accuracy += solver.test_nets[0].blobs["accuracy"].data
assert solver.iter == 6 and 0 <= accuracy / 2 <= 1
""",
)

_idioms(
    "net surgery notebook",
    filters_set_by_hand="""
net = caffe.Net("deploy.prototxt", caffe.TEST)
net.params["conv1"][0].data[0] = 0
net.params["conv1"][0].data[0, 1, 1, 1] = 1
net.params["conv1"][1].data[0] = 0
x = np.abs(np.random.randn(2, 3, 24, 24))
net.blobs["data"].data[...] = x
net.forward(end="relu1")
close(net.blobs["conv1"].data[:, 0], x[:, 1], rtol=1e-5)
""",
    bias_moved_by_a_constant="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
net.blobs["data"].data[...] = 1
before = net.forward(blobs=["fc8"])["fc8"].copy()
net.params["fc8"][1].data[...] += 2
close(net.forward(blobs=["fc8"])["fc8"], before + 2, rtol=1e-4, atol=1e-5)
""",
    input_reshaped_to_one_image="""
im = np.random.rand(24, 24, 3).astype(np.float32)
im_input = im.transpose(2, 0, 1)[np.newaxis, :, :, :]
net = caffe.Net("deploy.prototxt", caffe.TEST)
net.blobs["data"].reshape(*im_input.shape)
net.blobs["data"].data[...] = im_input
assert net.forward()["prob"].shape == (1, 5)
""",
    fully_connected_to_convolution="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
full = caffe.Net("dense.prototxt", "weights.caffemodel", caffe.TEST)
fc = {pr: (net.params[pr][0].data, net.params[pr][1].data) for pr in ("fc6", "fc8")}
conv = {pr: (full.params[pr][0].data, full.params[pr][1].data) for pr in ("fc6-conv", "fc8-conv")}
for pr, pr_conv in zip(("fc6", "fc8"), ("fc6-conv", "fc8-conv")):
    conv[pr_conv][0].flat = fc[pr][0].flat
    conv[pr_conv][1][...] = fc[pr][1]
full.save("dense.caffemodel")
x = np.random.randn(1, 3, 24, 24)
net.blobs["data"].reshape(1, 3, 24, 24)
close(full.forward_all(data=x)["prob"].ravel(), net.forward(data=x)["prob"].ravel(), rtol=1e-4)
""",
    map_of_classes="""
full = caffe.Net("dense.prototxt", caffe.TEST)
full.blobs["data"].reshape(1, 3, 40, 48)
out = full.forward_all(data=np.random.rand(1, 3, 40, 48))
assert out["prob"][0].argmax(axis=0).ndim == 2
""",
)

_idioms(
    "detection notebook and detect.py",
    detector_with_windows="""
detector = caffe.Detector("deploy.prototxt", "weights.caffemodel", mean=np.zeros(3),
                          input_scale=None, raw_scale=255, channel_swap=[2, 1, 0], context_pad=4)
windows = np.array([[0, 0, 20, 20], [5, 5, 30, 40]])
found = detector.detect_windows(zip(["cat.jpg"], [windows]))
assert [sorted(d) for d in found] == [["filename", "prediction", "window"]] * 2
assert np.array([d["prediction"] for d in found]).shape == (2, 5)
""",
    mean_of_a_mean_image="""
mean = np.load(caffe.__path__[0] + "/imagenet/ilsvrc_2012_mean.npy")
if mean.shape[1:] != (1, 1):
    mean = mean.mean(1).mean(1)
detector = caffe.Detector("deploy.prototxt", "weights.caffemodel", mean=mean)
assert detector.crop_mean.shape == (24, 24, 3)
""",
)

_idioms(
    "multilabel notebook",
    data_layer_in_python="""
params = dict(batch_size=2, im_shape=[8, 8], split="train")
n = caffe.NetSpec()
n.data, n.label = L.Python(module="idiom_layers", layer="Source", ntop=2, param_str=str(params))
n.score = L.InnerProduct(n.data, num_output=3)
n.loss = L.SigmoidCrossEntropyLoss(n.score, n.label)
with open("multi.prototxt", "w") as f:
    f.write(str(n.to_proto()))
net = caffe.Net("multi.prototxt", caffe.TRAIN)
assert net.forward()["loss"] > 0 and net.blobs["data"].data.shape == (2, 3, 8, 8)
assert net.layers[0].batch_size == 2
""",
    test_net_shares_with_the_train_net="""
solver = caffe.SGDSolver("solver.prototxt")
solver.test_nets[0].share_with(solver.net)
solver.step(1)
assert np.array_equal(solver.test_nets[0].params["fc8"][0].data, solver.net.params["fc8"][0].data)
""",
    hamming_accuracy="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
net.forward()
ests = net.blobs["fc8"].data > 0
gts = np.ones_like(ests)
assert 0 <= sum(sum(g == e) / float(len(g)) for g, e in zip(gts, ests)) <= 2
""",
)

_idioms(
    "FCN",
    upsampling_filters="""
def upsample(size):
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    og = np.ogrid[:size, :size]
    return (1 - abs(og[0] - center) / factor) * (1 - abs(og[1] - center) / factor)
net = caffe.Net("fcn.prototxt", caffe.TEST)
for l in [k for k in net.params.keys() if "up" in k]:
    m, k, h, w = net.params[l][0].data.shape
    assert m == k and h == w
    net.params[l][0].data[range(m), range(k), :, :] = upsample(h)
filters = net.params["upscore"][0].data
assert filters[0, 0].max() > 0 and not filters[0, 1].any()
""",
    image_of_any_size="""
net = caffe.Net("fcn.prototxt", caffe.TEST)
in_ = np.random.rand(30, 37, 3).astype(np.float32)[:, :, ::-1]
in_ = in_ - np.array((104.00698793, 116.66876762, 122.67891434))
in_ = in_.transpose((2, 0, 1))
net.blobs["data"].reshape(1, *in_.shape)
net.blobs["data"].data[...] = in_
net.forward()
out = net.blobs["score"].data[0].argmax(axis=0)
assert out.shape == (30, 37)
""",
    crop_of_an_upsampled_score="""
from caffe.coord_map import crop
n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[1, 3, 16, 16]))
n.conv1 = L.Convolution(n.data, kernel_size=3, pad=10, num_output=4)
n.pool1 = L.Pooling(n.conv1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
n.up = L.Deconvolution(n.pool1, convolution_param=dict(num_output=2, kernel_size=4, stride=2,
                       bias_term=False), param=[dict(lr_mult=0)])
n.score = crop(n.up, n.data)
assert n.to_proto().layer[-1].crop_param.offset[0] == 10
""",
    confusion_of_a_validation_set="""
solver = caffe.SGDSolver("solver.prototxt")
net = solver.test_nets[0]
n_cl = net.blobs["fc8"].channels
hist = np.zeros((n_cl, n_cl))
for _ in range(2):
    net.forward()
    a, b = net.blobs["label"].data.astype(int), net.blobs["fc8"].data.argmax(1)
    hist += np.bincount(n_cl * a + b, minlength=n_cl ** 2).reshape(n_cl, n_cl)
assert hist.sum() == 8
""",
    weights_by_transplant="""
old = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
new = caffe.Net("dense.prototxt", caffe.TEST)
for p in old.params:
    if p not in new.params:
        continue
    for i in range(len(old.params[p])):
        if i > (len(new.params[p]) - 1):
            break
        new.params[p][i].data.flat = old.params[p][i].data.flat
assert np.array_equal(new.params["conv1"][0].data, old.params["conv1"][0].data)
""",
    solver_for_many_steps_with_a_given_device="""
caffe.set_mode_cpu()
solver = caffe.SGDSolver("solver.prototxt")
solver.net.copy_from("weights.caffemodel")
for _ in range(2):
    solver.step(2)
assert solver.iter == 4
""",
)

_idioms(
    "py-faster-rcnn",
    forward_with_keyword_arrays="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
blobs = {"data": np.random.rand(1, 3, 24, 24)}
net.blobs["data"].reshape(*(blobs["data"].shape))
forward_kwargs = {"data": blobs["data"].astype(np.float32, copy=False)}
blobs_out = net.forward(**forward_kwargs)
assert blobs_out["prob"].shape == (1, 5)
""",
    solver_parameter_by_text_format="""
from caffe.proto import caffe_pb2
import google.protobuf as pb2
solver_param = caffe_pb2.SolverParameter()
with open("solver.prototxt", "rt") as f:
    pb2.text_format.Merge(f.read(), solver_param)
assert solver_param.max_iter == 6
""",
    snapshot_with_scaled_weights="""
solver = caffe.SGDSolver("solver.prototxt")
net = solver.net
orig = net.params["fc8"][0].data.copy()
stds = np.array([1, 2, 3, 4, 5])
net.params["fc8"][0].data[...] = net.params["fc8"][0].data * stds[:, np.newaxis]
net.save(str("scaled.caffemodel"))
net.params["fc8"][0].data[...] = orig
again = caffe.Net("train.prototxt", "scaled.caffemodel", caffe.TEST)
close(again.params["fc8"][0].data[4], 5 * orig[4])
""",
    method_of_a_python_layer="""
net = caffe.Net("python.prototxt", caffe.TRAIN)
net.layers[0].set_roidb([1, 2, 3])
assert net.layers[0].roidb == [1, 2, 3]
assert list(net._layer_names) == ["source", "loss"]
""",
    python_layer_with_yaml_like_parameters="""
net = caffe.Net("python.prototxt", caffe.TRAIN)
assert net.layers[0].params["batch_size"] == 3
assert [top.data.shape for top in (net.blobs["data"], net.blobs["label"])] == [(3, 3, 8, 8), (3, 3)]
""",
    name_of_a_net="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
net.name = "ZF"
assert net.name == "ZF"
""",
    training_while_the_iteration_is_below_a_limit="""
solver = caffe.SGDSolver("solver.prototxt")
while solver.iter < 3:
    solver.step(1)
assert solver.iter == 3
""",
    names_of_blobs_in_a_timer="""
import time
net = caffe.Net("deploy.prototxt", caffe.TEST)
assert "data" in net.blobs and "rois" not in net.blobs
assert len(net.blobs) == 6
""",
)

_idioms(
    "deepdream",
    patched_prototxt_with_force_backward="""
from google.protobuf import text_format
model = caffe.io.caffe_pb2.NetParameter()
text_format.Merge(open("deploy.prototxt").read(), model)
model.force_backward = True
open("tmp.prototxt", "w").write(str(model))
net = caffe.Classifier("tmp.prototxt", "weights.caffemodel", mean=np.float32([104.0, 116.0, 122.0]),
                       channel_swap=(2, 1, 0))
assert net.transformer.mean["data"].shape == (3, 1, 1)
""",
    gradient_ascent_on_the_input="""
net = caffe.Classifier("back.prototxt", "weights.caffemodel", mean=np.float32([104, 116, 122]))
src, dst = net.blobs["data"], net.blobs["conv1"]
src.reshape(1, 3, 30, 20)
src.data[0] = np.random.rand(3, 30, 20)
before = src.data[0].copy()
net.forward(end="conv1")
dst.diff[:] = dst.data
net.backward(start="conv1")
g = src.diff[0]
src.data[:] += 1.5 / np.abs(g).mean() * g
src.data[0] = np.clip(src.data[0], -net.transformer.mean["data"], 255)
assert not np.array_equal(src.data[0], before)
""",
    jitter_by_roll="""
net = caffe.Net("back.prototxt", caffe.TEST)
src = net.blobs["data"]
src.data[0] = np.arange(3 * 24 * 24).reshape(3, 24, 24)
src.data[0] = np.roll(np.roll(src.data[0], 3, -1), 2, -2)
assert src.data[0, 0, 2, 3] == 0
""",
    guide_by_products_of_features="""
net = caffe.Net("back.prototxt", caffe.TEST)
net.forward(end="conv1")
x = net.blobs["conv1"].data[0].copy()
y = x.reshape(x.shape[0], -1)
A = y.T.dot(y)
net.blobs["conv1"].diff[0].reshape(x.shape[0], -1)[:] = y[:, A.argmax(1)]
assert np.array_equal(net.blobs["conv1"].diff[0].reshape(x.shape[0], -1), y[:, A.argmax(1)])
""",
    image_to_input_by_hand="""
net = caffe.Classifier("deploy.prototxt", "weights.caffemodel", mean=np.float32([104, 116, 122]))
preprocess = lambda img: np.float32(np.rollaxis(img, 2)[::-1]) - net.transformer.mean["data"]
assert preprocess(np.ones((24, 24, 3))).shape == (3, 24, 24)
""",
)

_idioms(
    "neural style",
    gram_matrix_gradients="""
net = caffe.Net("back.prototxt", "weights.caffemodel", caffe.TEST)
net.blobs["data"].data[...] = np.random.rand(2, 3, 24, 24)
net.forward(end="relu1")
F = net.blobs["conv1"].data[0].reshape(net.blobs["conv1"].data.shape[1], -1)
G = F.dot(F.T)
net.blobs["conv1"].diff[:] = 0
net.blobs["conv1"].diff[0] += (G.dot(F)).reshape(net.blobs["conv1"].data[0].shape)
net.backward(start="relu1", end="conv1")
grad = net.blobs["data"].diff[0].flatten().astype(np.float64)
assert grad.any()
""",
    layers_to_remove_from_a_net="""
layers = [l for l in caffe.Net("deploy.prototxt", caffe.TEST).blobs if "fc" not in l]
assert layers == ["data", "conv1", "pool1", "prob"]
""",
    backward_from_layer_to_layer="""
net = caffe.Net("back.prototxt", "weights.caffemodel", caffe.TEST)
net.forward()
net.blobs["prob"].diff[...] = 1
for i in range(len(net.layers) - 1, 0, -1):
    net._backward(i, i)
assert np.isfinite(net.blobs["data"].diff).all()
""",
    image_to_show_again="""
t = caffe.io.Transformer({"data": (1, 3, 24, 24)})
t.set_mean("data", np.array([104, 117, 123]))
t.set_channel_swap("data", (2, 1, 0))
t.set_transpose("data", (2, 0, 1))
t.set_raw_scale("data", 255)
x = t.preprocess("data", np.random.rand(24, 24, 3))[np.newaxis]
assert t.deprocess("data", x).shape == (24, 24, 3)
""",
)

_idioms(
    "grad-cam and saliency",
    one_hot_diff_of_a_class="""
net = caffe.Net("back.prototxt", "weights.caffemodel", caffe.TEST)
net.blobs["data"].reshape(1, 3, 24, 24)
net.blobs["data"].data[...] = np.random.rand(1, 3, 24, 24)
net.forward()
net.blobs["fc8"].diff[0] = 0
net.blobs["fc8"].diff[0][3] = 1
net.backward(start="fc8", diffs=["conv1"])
weights = net.blobs["conv1"].diff[0].mean(axis=(1, 2))
cam = np.maximum((weights[:, None, None] * net.blobs["conv1"].data[0]).sum(0), 0)
assert cam.shape == (24, 24)
""",
    backward_by_the_name_of_the_output="""
net = caffe.Net("back.prototxt", "weights.caffemodel", caffe.TEST)
net.forward(data=np.random.rand(2, 3, 24, 24))
label = np.zeros((2, 5)); label[:, 1] = 1
bw = net.backward(**{net.outputs[0]: label})
saliency = np.amax(np.abs(bw["data"].squeeze()), axis=1)
assert saliency.shape == (2, 24, 24) and saliency.any()
""",
    diff_with_axes_of_one="""
net = caffe.Net("back.prototxt", "weights.caffemodel", caffe.TEST)
net.blobs["data"].reshape(1, 3, 24, 24)
net.forward()
bw = net.backward(prob=np.ones((1, 1, 1, 5)))
assert bw["data"].shape == (1, 3, 24, 24)
""",
    occlusion_by_forward_all="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
masked = np.random.rand(5, 3, 24, 24)
assert net.forward_all(blobs=["fc6"], data=masked)["fc6"].shape == (5, 10)
""",
    both_ways_at_once="""
net = caffe.Net("back.prototxt", "weights.caffemodel", caffe.TEST)
outs, diffs = net.forward_backward_all(data=np.random.rand(3, 3, 24, 24), prob=np.ones((3, 5)))
assert outs["prob"].shape == (3, 5) and diffs["data"].shape == (3, 3, 24, 24)
""",
)

_idioms(
    "faces",
    classifier_of_vgg_face="""
net = caffe.Classifier("deploy.prototxt", "weights.caffemodel")
net.transformer.set_mean("data", np.array([129.1863, 104.7624, 93.5940]))
net.transformer.set_raw_scale("data", 255)
net.transformer.set_channel_swap("data", (2, 1, 0))
scores = net.predict([caffe.io.load_image("cat.jpg")], oversample=False)
assert scores.shape == (1, 5)
""",
    feature_of_a_layer_before_the_last="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
net.blobs["data"].data[...] = 1
net.forward(end="fc6")
feature = np.array(net.blobs["fc6"].data[0]).reshape(1, -1)
assert feature.shape == (1, 10)
""",
    pyramid_of_input_sizes="""
net = caffe.Net("dense.prototxt", caffe.TEST)
for scale in (40, 32, 26):
    net.blobs["data"].reshape(1, 3, scale, scale)
    net.blobs["data"].data[...] = np.swapaxes(np.random.rand(scale, scale, 3), 0, 2)
    out = net.forward()
    assert out["prob"][0, 1, :, :].T.ndim == 2
""",
    batch_of_candidates="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
boxes = np.random.rand(7, 24, 24, 3)
net.blobs["data"].reshape(7, 3, 24, 24)
net.blobs["data"].data[...] = np.swapaxes(boxes, 1, 3)
out = net.forward()
passed = np.where(out["prob"][:, 1] > 0)[0]
assert len(passed) == 7
""",
)

_idioms(
    "classify.py",
    classifier_with_all_options="""
classifier = caffe.Classifier("deploy.prototxt", "weights.caffemodel", image_dims=[32, 32],
                              mean=np.load(caffe.__path__[0] + "/imagenet/ilsvrc_2012_mean.npy"),
                              input_scale=None, raw_scale=255.0, channel_swap=[2, 1, 0])
inputs = [caffe.io.load_image("cat.jpg")]
predictions = classifier.predict(inputs, not False)
np.save("predictions.npy", predictions)
assert np.load("predictions.npy").shape == (1, 5)
""",
    images_of_numpy_files="""
np.save("images.npy", np.random.rand(2, 24, 24, 3))
inputs = np.load("images.npy")
classifier = caffe.Classifier("deploy.prototxt", "weights.caffemodel")
close(classifier.predict(inputs, False).sum(axis=1), 1, rtol=1e-5)
""",
    crops_by_hand="""
images = [np.random.rand(32, 30, 3)]
assert caffe.io.oversample(images, (24, 24)).shape == (10, 24, 24, 3)
""",
)

_idioms(
    "draw_net.py",
    drawing_of_a_prototxt="""
from google.protobuf import text_format
import caffe, caffe.draw
from caffe.proto import caffe_pb2
net = caffe_pb2.NetParameter()
text_format.Merge(open("deploy.prototxt").read(), net)
caffe.draw.draw_net_to_file(net, "net.svg", "LR", None, False)
assert b"<svg" in open("net.svg", "rb").read()
""",
    label_of_a_layer="""
net = caffe.proto.caffe_pb2.NetParameter()
layer = net.layer.add(name="conv1", type="Convolution")
assert "conv1" in caffe.draw.get_layer_label(layer, "LR")
""",
)

_idioms(
    "train.py",
    callbacks_around_an_iteration="""
solver = caffe.SGDSolver("solver.prototxt")
total, allreduce = caffe.Timer(), caffe.Timer()
seen = []
solver.net.before_forward(lambda layer: seen.append(layer))
solver.add_callback(lambda: total.start(), lambda: (total.stop(), allreduce.start()))
solver.add_callback(lambda: "", lambda: allreduce.stop())
solver.step(1)
assert total.ms > 0 and allreduce.ms >= 0
assert seen == list(range(len(solver.net.layers)))
""",
    one_device="""
uid = caffe.NCCL.new_uid()
caffe.init_log()
caffe.log("Using devices [0]")
caffe.set_solver_count(1)
caffe.set_solver_rank(0)
caffe.set_multiprocess(True)
solver = caffe.SGDSolver("solver.prototxt")
nccl = caffe.NCCL(solver, uid)
nccl.bcast()
solver.add_callback(nccl)
if solver.param.layer_wise_reduce:
    solver.net.after_backward(nccl)
solver.step(solver.param.max_iter)
assert solver.iter == 6 and caffe.solver_count() == 1 and caffe.solver_rank() == 0
""",
    snapshot_and_restore="""
solver = caffe.SGDSolver("solver.prototxt")
solver.step(2)
solver.snapshot()
again = caffe.SGDSolver("solver.prototxt")
again.restore("own_iter_2.solverstate")
assert again.iter == 2
again.solve("own_iter_2.solverstate")
assert again.iter == 6
""",
    learning_rate_by_hand="""
solver = caffe.SGDSolver("solver.prototxt")
solver.net.forward()
solver.net.backward()
for layer, blobs in solver.net.params.items():
    for blob in blobs:
        blob.data[...] -= 0.01 * blob.diff
solver.net.clear_param_diffs()
assert not solver.net.params["fc8"][0].diff.any()
""",
)

_idioms(
    "databases",
    datums_written_to_lmdb="""
import lmdb
X, y = np.random.randint(0, 255, (3, 3, 4, 5)).astype(np.uint8), [2, 0, 1]
env = lmdb.open("own_lmdb", map_size=X.nbytes * 100)
with env.begin(write=True) as txn:
    for i in range(3):
        datum = caffe.proto.caffe_pb2.Datum()
        datum.channels, datum.height, datum.width = X.shape[1:]
        datum.data = X[i].tobytes()
        datum.label = int(y[i])
        txn.put("{:08}".format(i).encode("ascii"), datum.SerializeToString())
with env.begin() as txn:
    datum.ParseFromString(txn.get(b"00000001"))
env.close()
assert np.array_equal(caffe.io.datum_to_array(datum), X[1]) and datum.label == 0
net = open("own_data.prototxt", "w")
n = caffe.NetSpec()
n.data, n.label = L.Data(source="own_lmdb", backend=P.Data.LMDB, batch_size=3, ntop=2)
net.write(str(n.to_proto())); net.close()
assert np.array_equal(caffe.Net("own_data.prototxt", caffe.TEST).forward()["data"], X)
""",
    arrays_to_datums="""
datum = caffe.io.array_to_datum(np.random.rand(3, 4, 5).astype(float), 4)
flat = np.array(datum.float_data).astype(float).reshape(datum.channels, datum.height, datum.width)
close(flat, caffe.io.datum_to_array(datum), rtol=1e-6)
""",
    mean_of_a_binaryproto="""
blob = caffe.proto.caffe_pb2.BlobProto()
blob.ParseFromString(open("mean.binaryproto", "rb").read())
arr = np.array(caffe.io.blobproto_to_array(blob))
np.save("mean.npy", arr[0])
assert np.load("mean.npy").mean(1).mean(1).shape == (3,)
""",
    mean_image_of_another_size_in_a_transformer="""
t = caffe.io.Transformer({"data": (1, 3, 24, 24)})
t.set_mean("data", np.random.rand(3, 32, 32))
assert t.mean["data"].shape == (3, 24, 24)
""",
    binaryproto_written="""
blob = caffe.io.array_to_blobproto(np.ones((1, 3, 2, 2)))
with open("own.binaryproto", "wb") as f:
    f.write(blob.SerializeToString())
assert caffe.io.blobproto_to_array(blob).shape == (1, 3, 2, 2)
""",
    images_in_memory="""
from io import BytesIO
image = caffe.io.load_image(BytesIO(open("cat.jpg", "rb").read()))
assert np.array_equal(image, caffe.io.load_image("cat.jpg"))
""",
    missing_image_as_an_ioerror="""
try:
    caffe.io.load_image("none.jpg")
    assert False
except IOError:
    pass
""",
    gray_images_and_their_size="""
image = caffe.io.load_image("gray.png", color=False)
assert image.shape == (20, 30, 1)
assert caffe.io.resize_image(image, (24, 24)).shape == (24, 24, 1)
assert caffe.io.resize(image, (24, 24)).shape == (24, 24, 1)
""",
    memory_data_with_labels="""
net = caffe.Net("memory.prototxt", caffe.TEST)
X = np.require(np.random.rand(4, 1, 2, 3), dtype="float32", requirements="C")
net.set_input_arrays(X, np.arange(4, dtype=np.float32))
assert net.forward()["label"].tolist() == [0, 1]
""",
)

_idioms(
    "converters",
    caffemodel_as_a_message="""
model = caffe.proto.caffe_pb2.NetParameter()
model.ParseFromString(open("weights.caffemodel", "rb").read())
sizes = {l.name: [caffe.io.blobproto_to_array(b).shape for b in l.blobs] for l in model.layer}
assert sizes["fc8"] == [(5, 10), (5,)]
""",
    weights_as_a_dictionary="""
import pickle
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
weights = {k: [b.data.copy() for b in v] for k, v in net.params.items()}
assert pickle.loads(pickle.dumps(weights))["fc6"][1].shape == (10,)
""",
    types_by_enumeration="""
from caffe.proto import caffe_pb2
assert caffe_pb2.V1LayerParameter.LayerType.Name(4) == "CONVOLUTION"
assert caffe_pb2._V1LAYERPARAMETER_LAYERTYPE.values_by_name["RELU"].number == 18
assert caffe_pb2.PoolingParameter.MAX == 0
""",
    fields_of_layers="""
from caffe.proto import caffe_pb2
names = [f.name for f in caffe_pb2._LAYERPARAMETER.fields]
assert {"name", "type", "bottom", "top", "convolution_param"} <= set(names)
assert caffe_pb2.LayerParameter().HasField("convolution_param") is False
""",
    prototxt_edited_by_messages="""
from google.protobuf import text_format
from caffe.proto.caffe_pb2 import NetParameter, LayerParameter
model = NetParameter()
text_format.Merge(open("deploy.prototxt").read(), model)
for layer in model.layer:
    if layer.type == "InnerProduct":
        layer.inner_product_param.num_output *= 2
model.layer.extend([LayerParameter(name="s", type="Softmax", bottom=["fc6"], top=["s"])])
open("wide.prototxt", "w").write(text_format.MessageToString(model))
assert caffe.Net("wide.prototxt", caffe.TEST).blobs["s"].data.shape == (2, 20)
""",
    layers_and_their_tops="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
table = [(name, net.layers[i].type, [b.data.shape for b in net.layers[i].blobs])
         for i, name in enumerate(net._layer_names)]
assert table[1] == ("conv1", "Convolution", [(4, 3, 3, 3), (4,)])
assert net.top_names["pool1"] == ["pool1"] and net.bottom_names["pool1"] == ["conv1"]
assert [net._blob_names[i] for i in net._top_ids(3)] == ["pool1"]
assert net.layer_dict["conv1"].type == "Convolution"
""",
    batch_norm_merged_into_a_convolution="""
net = caffe.Net("norm.prototxt", caffe.TEST)
mean, var, factor = (b.data for b in net.params["bn"])
mean[...], var[...], factor[...] = 1, 4, 2
scale = 1.0 / factor[0]
w = net.params["conv"][0]
rstd = 1.0 / np.sqrt(var * scale + 1e-5)
w.data[...] = w.data * rstd.reshape(-1, 1, 1, 1)
assert type(net.params["bn"]) is caffe._caffe.BlobVec and len(net.params["bn"]) == 3
""",
    types_of_layers="""
from caffe._caffe import layer_type_list
assert "Convolution" in layer_type_list() and "Python" in caffe.layer_type_list()
""",
    net_from_the_module_of_nets="""
from caffe.pycaffe import Net, SGDSolver
assert Net is caffe.Net and SGDSolver is caffe.SGDSolver
""",
    legacy_inputs="""
with open("legacy.prototxt", "w") as f:
    f.write('input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8 '
            'layers { name: "r" type: RELU bottom: "data" top: "r" }')
net = caffe.Net("legacy.prototxt", caffe.TEST)
assert net.inputs == ["data"] and net.forward(data=-np.ones((1, 3, 8, 8)))["r"].max() == 0
""",
    hdf5_weights="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
net.save_hdf5("own.caffemodel.h5")
other = caffe.Net("deploy.prototxt", caffe.TEST)
other.load_hdf5("own.caffemodel.h5")
assert np.array_equal(other.params["fc8"][0].data, net.params["fc8"][0].data)
""",
    sparsity_of_weights="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
w = net.params["fc6"][0].data
w[np.abs(w) < np.percentile(np.abs(w), 50)] = 0
assert 0.4 < (net.params["fc6"][0].data == 0).mean() < 0.6
""",
    a_seed_for_fillers="""
first = []
for _ in range(2):
    caffe.set_random_seed(3)
    first.append(caffe.Net("deploy.prototxt", caffe.TEST).params["conv1"][0].data.copy())
assert np.array_equal(*first)
""",
    assign_to_a_message_by_name="""
from caffe.net_spec import assign_proto, param_name_dict
layer = caffe.proto.caffe_pb2.LayerParameter(name="c", type="Convolution")
name = param_name_dict()[layer.type] + "_param"
assign_proto(layer, name, dict(num_output=3, kernel_size=[3, 3]))
assert list(layer.convolution_param.kernel_size) == [3, 3]
""",
    images_with_the_names_of_io="""
assert caffe.io.np.uint8(3) == 3
assert caffe.io.skimage.transform.rescale(np.ones((4, 4)), 0.5).shape == (2, 2)
assert caffe.io.Transformer is caffe.io.Transformer
""",
)
