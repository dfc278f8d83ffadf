// Stub for a test: a graph whose engine file is one line, "INPUT OUTPUT COUNT TYPE FACTOR [padded|error]", and that
// computes OUTPUT = FACTOR * INPUT. With a companion the factor is what the companion's file says.
#pragma once
#include "NvInferSafeRecorder.h"
#include "cuda_runtime_api.h"
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
namespace nvinfer2::safe
{
struct half_t { uint16_t bits; };
enum class MemoryPlacement : int32_t { kNONE, kGPU, kCPU, kCPU_PINNED };
struct TensorDescriptor
{
    TensorIOMode ioMode{};
    DataType dataType{};
    nvinfer1::Dims shape{};
    nvinfer1::Dims stride{};
    uint64_t bytesPerComponent{};
    uint64_t sizeInBytes{};
    MemoryPlacement memPlacement{};
};
class TypedArray
{
public:
    template <typename T>
    TypedArray(T* data, uint64_t size) : memory(data), bytes(size) {}
    void* memory;
    uint64_t bytes;
};
class ITRTGraph
{
public:
    std::string name[2], type, how;
    int64_t count{};
    float factor{};
    void* memory[2]{};
    ISafeRecorder* recorder{};
    int32_t streams{-1};
    ErrorCode getNbIOTensors(int64_t& number) { number = 2; return ErrorCode::kSUCCESS; }
    ErrorCode getIOTensorName(char const*& found, int64_t k) { found = name[k].c_str(); return ErrorCode::kSUCCESS; }
    ErrorCode getIOTensorDescriptor(TensorDescriptor& desc, char const* wanted)
    {
        int const k = wanted == name[1];
        uint64_t const bytes = type == "HALF" && k == 1 ? 2 : 4;
        desc.ioMode = k == 0 ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
        desc.dataType = bytes == 2 ? DataType::kHALF : DataType::kFLOAT;
        desc.shape = {2, {1, count}};
        desc.bytesPerComponent = bytes;
        desc.sizeInBytes = bytes * static_cast<uint64_t>(count) * (how == "padded" ? 2 : 1);
        return ErrorCode::kSUCCESS;
    }
    ErrorCode setIOTensorAddress(char const* wanted, TypedArray const& array)
    {
        memory[wanted == name[1]] = array.memory;
        return ErrorCode::kSUCCESS;
    }
    ErrorCode getNbAuxStreams(int32_t& number) { number = 1; return ErrorCode::kSUCCESS; }
    ErrorCode setAuxStreams(cudaStream_t*, int32_t number) { streams = number; return ErrorCode::kSUCCESS; }
    ErrorCode setInputConsumedEvent(cudaEvent_t) { return ErrorCode::kSUCCESS; }
    ErrorCode executeAsync(cudaStream_t)
    {
        if (how == "error") { recorder->reportError(ErrorCode::kFAILED_EXECUTION, "the stub fails"); }
        if (how == "code") { return ErrorCode::kFAILED_EXECUTION; }
        if (streams != 1) { return ErrorCode::kINVALID_ARGUMENT; }
        for (int64_t k = 0; k < count; ++k)
        {
            float const value = factor * static_cast<float*>(memory[0])[k];
            if (type == "HALF") { static_cast<uint16_t*>(memory[1])[k] = half(value); }
            else { static_cast<float*>(memory[1])[k] = value; }
        }
        return ErrorCode::kSUCCESS;
    }
    ErrorCode sync() { return ErrorCode::kSUCCESS; }
    // Exact for the normal, zero and subnormal halves that the test feeds.
    static uint16_t half(float value)
    {
        if (value == 0.0F) { return std::signbit(value) ? 0x8000 : 0; }
        int exponent = 0;
        float const mantissa = std::frexp(std::fabs(value), &exponent);
        uint16_t const sign = value < 0.0F ? 0x8000 : 0;
        if (exponent < -13) { return sign | static_cast<uint16_t>(std::ldexp(std::fabs(value), 24)); }
        return sign | static_cast<uint16_t>((exponent + 14) << 10) | static_cast<uint16_t>(std::ldexp(mantissa, 11) - 1024.0F);
    }
};
inline ErrorCode createTRTGraph(ITRTGraph*& graph, void const* blob, uint64_t size, ISafeRecorder& recorder, bool = true, void* = nullptr)
{
    std::istringstream words(std::string(static_cast<char const*>(blob), size));
    graph = new ITRTGraph;
    graph->recorder = &recorder;
    words >> graph->name[0] >> graph->name[1] >> graph->count >> graph->type >> graph->factor;
    if (!words) { delete graph; graph = nullptr; return ErrorCode::kINVALID_ARGUMENT; }
    words >> graph->how;
    return ErrorCode::kSUCCESS;
}
inline ErrorCode stubWithCompanion(ITRTGraph*& graph, void const* blob, uint64_t size, ISafeRecorder& recorder, char const* path)
{
    auto const code = createTRTGraph(graph, blob, size, recorder);
    std::ifstream companion(path);
    if (code == ErrorCode::kSUCCESS && !(companion >> graph->factor)) { return ErrorCode::kINVALID_ARGUMENT; }
    return code;
}
inline ErrorCode destroyTRTGraph(ITRTGraph*& graph) { delete graph; graph = nullptr; return ErrorCode::kSUCCESS; }
}
