// Stub for a test: the names of the CUDA runtime that safe_compare uses, on the host's memory.
#pragma once
#include <cstdlib>
#include <cstring>
using cudaError_t = int;
using cudaStream_t = void*;
using cudaEvent_t = void*;
enum { cudaSuccess = 0, cudaStreamNonBlocking = 1 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
inline char const* cudaGetErrorString(cudaError_t) { return "stub"; }
inline cudaError_t cudaMalloc(void** memory, size_t size) { return (*memory = std::calloc(1, size)) == nullptr; }
inline cudaError_t cudaFree(void* memory) { std::free(memory); return 0; }
inline cudaError_t cudaMemcpy(void* to, void const* from, size_t size, cudaMemcpyKind) { std::memcpy(to, from, size); return 0; }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned) { return 0; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return 0; }
inline cudaError_t cudaEventCreate(cudaEvent_t*) { return 0; }
