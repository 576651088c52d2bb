// Writes the pixels of a decoded image to a slice of the input blob. Caffe: data_transformer.cpp.

#include "vector.h"

namespace verydeep::VD_ISA {
namespace {

struct Crop {
    Index channels, height, width;
    Index pitch;  // elements between rows of pixels
    bool mirror;
    const float* offsets;  // one per channel, or null
    const float* mean;     // or null; its plane and row strides follow
    Index mean_plane, mean_pitch;
    float scale;
};

// out = ((pixel - offset) - mean) scale, in this order, each step rounded as in NumPy.
// kChannels is 0 if the number of channels is only known at run time.
template <int kChannels, class Pixel>
void transform(const Crop& g, const Pixel* pixels, float* out) {
    const Index channels = kChannels ? kChannels : g.channels;
    for (Index c = 0; c < channels; ++c) {
        const float offset = g.offsets ? g.offsets[c] : 0.f;
        for (Index row = 0; row < g.height; ++row) {
            const Pixel* from = pixels + row * g.pitch + c;
            float* to = out + (c * g.height + row) * g.width;
            const float* mean = g.mean ? g.mean + c * g.mean_plane + row * g.mean_pitch : nullptr;
            if (!mean && !g.mirror) {
                for (Index i = 0; i < g.width; ++i)
                    to[i] = (static_cast<float>(from[i * channels]) - offset) * g.scale;
            } else if (!mean) {
                const Pixel* last = from + (g.width - 1) * channels;
                for (Index i = 0; i < g.width; ++i)
                    to[i] = (static_cast<float>(last[-i * channels]) - offset) * g.scale;
            } else {
                for (Index i = 0; i < g.width; ++i) {
                    const Index x = g.mirror ? g.width - 1 - i : i;
                    to[i] = (static_cast<float>(from[x * channels]) - offset - mean[x]) * g.scale;
                }
            }
        }
    }
}

template <class Pixel>
void transform_any(const Crop& g, const void* pixels, float* out) {
    if (g.channels == 3)
        transform<3>(g, static_cast<const Pixel*>(pixels), out);
    else
        transform<0>(g, static_cast<const Pixel*>(pixels), out);
}

}  // namespace
}  // namespace verydeep::VD_ISA

using namespace verydeep::VD_ISA;

// One image, in the calling thread, since readers are threads themselves.
// Shapes: pixels (height, pitch), of which width * channels are read, uint8 or float; offsets
// (channels,); mean (channels, ...) from the first pixel of the crop; out (channels, height,
// width).
VD_EXPORT_ALONE(image_transform)(std::int64_t floating, std::int64_t channels, std::int64_t height,
                           std::int64_t width, std::int64_t pitch, std::int64_t mirror,
                           const float* offsets, const float* mean, std::int64_t mean_plane,
                           std::int64_t mean_pitch, float scale, const void* pixels, float* out) {
    const Crop g{channels, height, width, pitch, mirror != 0, offsets, mean, mean_plane, mean_pitch, scale};
    if (floating)
        transform_any<float>(g, pixels, out);
    else
        transform_any<std::uint8_t>(g, pixels, out);
}
