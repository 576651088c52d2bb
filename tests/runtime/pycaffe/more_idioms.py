"""More programs as in idioms.py: of generators of nets, converters, layers in Python and tools."""

from __future__ import annotations

MORE_IDIOMS: dict[str, str] = {}


def _idioms(origin: str, **programs: str) -> None:
    names = {f"{origin}: {name.replace('_', ' ')}": text for name, text in programs.items()}
    MORE_IDIOMS.update(names)


_idioms(
    "generators of nets",
    names_of_tops_computed_by_functions="""
def conv_bn(net, source, name, width, **options):
    net[name] = L.Convolution(
        net[source], num_output=width, kernel_h=3, kernel_w=3, pad_h=1, pad_w=1, bias_term=False,
        param=[dict(lr_mult=1, decay_mult=1)], weight_filler=dict(type="gaussian", std=0.01))
    net[f"{name}_bn"] = L.BatchNorm(net[name], in_place=True, **options)
    net[f"{name}_scale"] = L.Scale(net[f"{name}_bn"], bias_term=True, in_place=True)
    net[f"{name}_relu"] = L.ReLU(net[f"{name}_scale"], in_place=True)
    return f"{name}_relu"
net = caffe.NetSpec()
net.data = L.Input(shape=dict(dim=[1, 3, 8, 8]))
last = conv_bn(net, "data", "conv1", 4, eps=0.001, use_global_stats=True)
last = conv_bn(net, last, "conv2", 4)
net.sum = L.Eltwise(net.conv1_relu, net[last], operation=P.Eltwise.SUM)
proto = net.to_proto()
assert [layer.name for layer in proto.layer][-2:] == ["conv2_relu", "sum"]
assert list(proto.layer[-1].bottom) == ["conv1", "conv2"]
assert proto.layer[2].batch_norm_param.use_global_stats
with open("generated.prototxt", "w") as f:
    print("name: 'generated'", file=f)
    print(proto, file=f)
assert caffe.Net("generated.prototxt", caffe.TEST).forward()["sum"].shape == (1, 4, 8, 8)
""",
    last_top_of_a_net="""
n = caffe.NetSpec()
n.data = L.Input(input_param=dict(shape=[dict(dim=[1, 3, 9, 9])]))
for index in range(3):
    below = n.tops[list(n.tops.keys())[-1]]
    setattr(n, f"conv{index}", L.Convolution(below, kernel_size=3, num_output=2, stride=1))
assert list(n.__dict__["tops"]) == ["data", "conv0", "conv1", "conv2"]
assert [str(layer.type) for layer in n.to_proto().layer].count("Convolution") == 3
""",
    messages_as_arguments="""
from caffe.proto import caffe_pb2
weight = caffe_pb2.ParamSpec()
weight.name, weight.lr_mult, weight.decay_mult = "shared_w", 1, 1
bias = caffe_pb2.ParamSpec(name="shared_b", lr_mult=2, decay_mult=0)
filler = caffe_pb2.FillerParameter(type="xavier")
n = caffe.NetSpec()
n.left, n.right = (L.Input(shape=dict(dim=[2, 4])) for _ in range(2))
n.a = L.InnerProduct(n.left, num_output=3, param=[weight, bias], weight_filler=filler)
n.b = L.InnerProduct(n.right, num_output=3, param=[weight, bias], weight_filler=filler)
open("shared.prototxt", "w").write(str(n.to_proto()))
net = caffe.Net("shared.prototxt", caffe.TEST)
net.params["a"][0].data[...] = 2
assert (net.params["b"][0].data == 2).all()
""",
    layers_with_several_or_no_tops="""
n = caffe.NetSpec()
n.data, n.label = L.DummyData(shape=[dict(dim=[2, 6, 4, 4]), dict(dim=[2])], ntop=2)
n.x, n.y, n.z = L.Slice(n.data, ntop=3, slice_param=dict(axis=1, slice_point=[1, 3]))
n.back = L.Concat(*[n.z, n.x], concat_param=dict(axis=1))
n.silence = L.Silence(n.y, n.label, ntop=0)
net_text = str(n.to_proto())
assert net_text.count("top:") == 6
open("sliced.prototxt", "w").write(net_text)
assert caffe.Net("sliced.prototxt", caffe.TEST).blobs["back"].data.shape == (2, 4, 4, 4)
""",
    rules_of_phases="""
n = caffe.NetSpec()
n.data, n.label = L.DummyData(shape=[dict(dim=[2, 3]), dict(dim=[2])], ntop=2,
                              include=dict(phase=caffe.TRAIN))
train = str(n.to_proto())
n = caffe.NetSpec()
n.data, n.label = L.DummyData(shape=[dict(dim=[5, 3]), dict(dim=[5])], ntop=2,
                              include={"phase": caffe.TEST})
n.ip = L.InnerProduct(n.data, num_output=2)
n.acc = L.Accuracy(n.ip, n.label, include=dict(phase=caffe.TEST))
n.loss = L.SoftmaxWithLoss(n.ip, n.label, loss_weight=1)
open("phases.prototxt", "w").write(train + str(n.to_proto()))
assert caffe.Net("phases.prototxt", caffe.TRAIN).blobs["data"].num == 2
test = caffe.Net("phases.prototxt", caffe.TEST)
assert test.blobs["data"].num == 5 and "acc" in test.blobs
""",
    layer_in_python_with_a_dictionary="""
n = caffe.NetSpec()
n.data, n.label = L.Python(module="idiom_layers", layer="Source", ntop=2,
                           param_str=str(dict(batch_size=2, im_shape=[5, 6])))
n.loss = L.Python(n.data, module="idiom_layers", layer="Sum", loss_weight=1)
open("pythonic.prototxt", "w").write(str(caffe.to_proto(n.loss, n.label)))
net = caffe.Net("pythonic.prototxt", caffe.TRAIN)
assert abs(net.forward()[net.outputs[-1]].sum()) > 0
""",
)

_idioms(
    "layers in Python",
    weights_of_the_layer="""
net = caffe.Net("gain.prototxt", caffe.TRAIN)
assert [blob.data.shape for blob in net.params["gain"]] == [(3,), (1, 2)]
net.blobs["data"].data[...] = np.arange(6).reshape(2, 3)
close(net.forward()["gain"], [[0, 2, 4], [6, 8, 10]])
net.blobs["gain"].diff[...] = 1
net.backward()
close(net.params["gain"][0].diff, [3, 5, 7])
close(net.blobs["data"].diff, 2)
""",
    weights_of_the_layer_in_a_file="""
net = caffe.Net("gain.prototxt", caffe.TRAIN)
net.params["gain"][0].data[...] = [1, 2, 3]
net.save("gain.caffemodel")
again = caffe.Net("gain.prototxt", "gain.caffemodel", caffe.TEST)
close(again.params["gain"][0].data, [1, 2, 3])
""",
    error_of_the_layer="""
net = caffe.Net("gain.prototxt", caffe.TEST)
net.blobs["data"].reshape(2, 4)
try:
    net.reshape()
except Exception as error:
    assert "expected 3 columns" in str(error)
else:
    raise AssertionError("no error")
""",
)

_idioms(
    "converters of weights",
    binary_files_of_arrays="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
for key in net.params:
    for i in range(len(net.params[key])):
        net.params[key][i].data.tofile(f"{key}_{i}.dat")
again = np.fromfile("fc6_0.dat", np.float32).reshape(net.params["fc6"][0].data.shape)
assert np.array_equal(again, net.params["fc6"][0].data)
""",
    type_of_a_list_of_weights="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
layers = [k for k in net.params.keys() if type(net.params[k]) is caffe._caffe.BlobVec]
assert layers == ["conv1", "fc6", "fc8"]
assert type(net.params["conv1"][0]) is caffe._caffe.Blob
""",
    mean_of_several_models="""
from caffe.proto import caffe_pb2
models = []
for path in ["weights.caffemodel", "weights.caffemodel"]:
    model = caffe_pb2.NetParameter()
    with open(path, "rb") as f:
        model.ParseFromString(f.read())
    models.append(model)
for index, layer in enumerate(models[0].layer):
    for place, blob in enumerate(layer.blobs):
        total = sum(np.array(m.layer[index].blobs[place].data) for m in models)
        del blob.data[:]
        blob.data.extend((total / len(models)).tolist())
with open("mean.caffemodel", "wb") as f:
    f.write(models[0].SerializeToString())
one = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
two = caffe.Net("deploy.prototxt", "mean.caffemodel", caffe.TEST)
close(one.params["fc8"][0].data, two.params["fc8"][0].data)
""",
    layers_renamed_and_removed="""
from caffe.proto import caffe_pb2
model = caffe_pb2.NetParameter()
model.ParseFromString(open("weights.caffemodel", "rb").read())
for layer in list(model.layer):
    if layer.name == "fc8":
        model.layer.remove(layer)
    elif layer.name == "conv1":
        layer.name = "conv1_renamed"
        layer.ClearField("param")
open("renamed.caffemodel", "wb").write(model.SerializeToString())
net = caffe.Net("deploy.prototxt", caffe.TEST)
before = net.params["conv1"][0].data.copy()
net.copy_from("renamed.caffemodel")
assert np.array_equal(net.params["conv1"][0].data, before)
""",
    batch_norm_statistics_divided="""
net = caffe.Net("norm.prototxt", caffe.TRAIN)
net.blobs["data"].data[...] = np.random.RandomState(0).randn(*net.blobs["data"].data.shape)
net.forward()
mean, var, factor = (blob.data for blob in net.params["bn"])
factor = 0 if factor[0] == 0 else 1.0 / factor[0]
close(mean * factor, net.params["bn"][0].data / net.params["bn"][2].data, rtol=1e-5)
assert (var * factor > 0).all()
""",
    text_of_a_model="""
from caffe.proto import caffe_pb2
from google.protobuf import text_format
model = caffe_pb2.NetParameter()
text_format.Merge(open("deploy.prototxt").read(), model)
assert "num_output: 10" in str(model)
model.layer[0].input_param.shape[0].dim[0] = 7
open("seven.prototxt", "w").write(text_format.MessageToString(model))
assert caffe.Net("seven.prototxt", caffe.TEST).blobs["data"].num == 7
""",
)

_idioms(
    "tools",
    net_in_a_thread_of_its_own="""
import threading
results = []
def work():
    caffe.set_mode_cpu()
    net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
    net.blobs["data"].data[...] = 1
    results.append(net.forward()["prob"].copy())
threads = [threading.Thread(target=work) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(results) == 2 and np.array_equal(*results)
""",
    net_in_a_process_of_its_own="""
import multiprocessing
def work(queue):
    net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
    net.blobs["data"].data[...] = 1
    queue.put(net.forward()["prob"])
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=work, args=(queue,))
process.start()
assert queue.get(timeout=60).shape == (2, 5)
process.join()
""",
    arrays_given_by_position="""
net = caffe.Net("memory.prototxt", caffe.TEST)
data = np.random.rand(4, 1, 2, 3).astype(np.float32)
labels = np.arange(4, dtype=np.float32)
net.set_input_arrays(data, labels)
seen = [net.forward()["label"].tolist() for _ in range(3)]
assert seen == [[0, 1], [2, 3], [0, 1]]
""",
    records_of_a_database="""
import lmdb
env = lmdb.open("images_lmdb", readonly=True)
labels = []
with env.begin() as txn:
    for key, value in txn.cursor():
        datum = caffe.proto.caffe_pb2.Datum()
        datum.ParseFromString(value)
        flat = np.frombuffer(datum.data, np.uint8)
        image = flat.reshape(datum.channels, datum.height, datum.width)
        assert np.array_equal(caffe.io.datum_to_array(datum), image)
        labels.append(datum.label)
env.close()
assert labels == [0, 1, 2, 3] * 2
""",
    encoded_record="""
import cv2
raw = open("cat.jpg", "rb").read()
datum = caffe.proto.caffe_pb2.Datum(data=raw, label=3, encoded=True)
again = caffe.io.caffe_pb2.Datum.FromString(datum.SerializeToString())
image = cv2.imdecode(np.frombuffer(again.data, np.uint8), -1)
assert image.shape == (40, 50, 3) and again.encoded
""",
    infogain_matrix="""
matrix = np.eye(3, dtype=np.float32)[None, None]
with open("infogain.binaryproto", "wb") as f:
    f.write(caffe.io.array_to_blobproto(matrix).SerializeToString())
n = caffe.NetSpec()
n.data, n.label = (L.Input(shape=dict(dim=dim)) for dim in ([2, 3], [2]))
n.loss = L.InfogainLoss(n.data, n.label, infogain_loss_param=dict(source="infogain.binaryproto"))
open("infogain.prototxt", "w").write(str(n.to_proto()))
net = caffe.Net("infogain.prototxt", caffe.TEST)
net.blobs["label"].data[...] = [0, 2]
close(net.forward()["loss"], np.log(3), rtol=1e-5)
""",
    newest_snapshot_by_glob="""
import glob, os, re
solver = caffe.get_solver("solver.prototxt")
solver.step(2)
solver.snapshot()
solver.step(1)
solver.snapshot()
states = glob.glob("own_iter_*.solverstate")
newest = max(states, key=lambda name: int(re.search(r"_iter_(\\d+)", name).group(1)))
again = caffe.SGDSolver("solver.prototxt")
again.restore(newest)
assert again.iter == 3
for name in glob.glob("own_iter_*"):
    os.remove(name)
""",
    layers_of_a_net_by_name="""
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
assert net.layer_dict["conv1"].type == "Convolution"
assert net.layer_dict["conv1"].blobs[0].data.shape == (4, 3, 3, 3)
assert net.bottom_names["conv1"] == ["data"] and net.top_names["pool1"] == ["pool1"]
counts = {name: sum(blob.count for blob in blobs) for name, blobs in net.params.items()}
assert counts["conv1"] == 4 * 27 + 4
assert [net.blobs[name].width for name in ("data", "pool1")] == [24, 12]
""",
    log_of_the_session="""
import os
os.environ["GLOG_minloglevel"] = "2"
caffe.init_log(2)
caffe.log("a line")
caffe.set_random_seed(7)
assert caffe.TRAIN == 0 and caffe.TEST == 1
assert "Convolution" in list(caffe.layer_type_list())
assert isinstance(caffe.__version__, str)
""",
)
