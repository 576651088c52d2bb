// warp.cu -- every instruction of a warp, each result in a row of its own
#include "common.cuh"

constexpr int ROWS = 15;

// x (32) in; y (ROWS, 32) out
extern "C" __global__ void __launch_bounds__(32) instructions(const float* x, float* y) {
    const int lane = threadIdx.x;
    const float value = x[lane];
    int row = 0;
    auto put = [&](float result) { y[WARP * row++ + lane] = result; };
    put(__shfl_sync(ALL_LANES, value, 5));
    put(__shfl_sync(ALL_LANES, value, lane + 3, 8));
    put(__shfl_up_sync(ALL_LANES, value, 2));
    put(__shfl_up_sync(ALL_LANES, value, 1, 4));
    put(__shfl_down_sync(ALL_LANES, value, 2));
    put(__shfl_down_sync(ALL_LANES, value, 3, 16));
    put(__shfl_xor_sync(ALL_LANES, value, 9));
    put(static_cast<float>(__ballot_sync(ALL_LANES, lane % 3 == 0) >> 8));
    put(static_cast<float>(__any_sync(ALL_LANES, lane == 7)));
    put(static_cast<float>(__all_sync(ALL_LANES, lane < 32)));
    put(static_cast<float>(__all_sync(ALL_LANES, lane < 31)));
    put(warp_sum(value));
    // Two halves of the warp, each with an instruction and a mask of its own.
    put(lane < 16 ? __shfl_xor_sync(0x0000ffffu, value, 1) : __shfl_xor_sync(0xffff0000u, value, 2));
    const int4 quad = make_int4(lane, 2 * lane, 3 * lane, 4 * lane);
    const int4 theirs = {__shfl_sync(ALL_LANES, quad.x, 31 - lane), 0, 0,
                         __shfl_sync(ALL_LANES, quad.w, 31 - lane)};
    put(static_cast<float>(theirs.x + theirs.w));
    // From a lane that does not take part.
    put(lane < 16 ? __shfl_sync(0x0000ffffu, value, 20) : value);
}

// turns (threads of the grid) out: whose turn it was, as counted by `counter`
extern "C" __global__ void take_turns(int* counter, int* turns) {
    turns[global_thread()] = atomicAdd(counter, 1);
}

// x (n) in; y (1) out: a sum by a block, twice, to use the scratch again
extern "C" __global__ void __launch_bounds__(256) block_sums(const float* x, float* y, int n) {
    SHARED(scratch, float[256 / WARP]);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += 256) sum += x[i];
    const float total = block_sum<256>(sum, scratch);
    __syncthreads();
    const float again = block_sum<256>(2.0f * sum, scratch);
    if (threadIdx.x == 0) {
        y[0] = total;
        y[1] = again;
    }
}

// counts (4) in and out: atomics of integers, whose order does not matter
extern "C" __global__ void atomics(int* counts, unsigned* flags) {
    const int me = static_cast<int>(global_thread());
    atomicAdd(&counts[0], me);
    atomicMax(&counts[1], me);
    atomicMin(&counts[2], -me);
    atomicCAS(&counts[3], 0, 5);
    atomicAdd(flags, 1u << me % 8);
}
