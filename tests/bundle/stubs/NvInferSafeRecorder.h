// Stub for a test: names only, as NVIDIA's public samples use them; nothing of NVIDIA's headers is in it.
#pragma once
#include <cstdint>
namespace nvinfer1
{
enum class ErrorCode : int32_t { kSUCCESS = 0, kINTERNAL_ERROR = 2, kINVALID_ARGUMENT = 3, kFAILED_EXECUTION = 7 };
enum class DataType : int32_t { kFLOAT, kHALF, kINT8, kINT32, kBOOL, kUINT8, kINT64 };
enum class TensorIOMode : int32_t { kNONE, kINPUT, kOUTPUT };
struct Dims { int32_t nbDims; int64_t d[8]; };
}
namespace nvinfer2::safe
{
using nvinfer1::DataType;
using nvinfer1::ErrorCode;
using nvinfer1::TensorIOMode;
enum class Severity : int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE, kDEBUG };
class ISafeRecorder
{
public:
    using ErrorDesc = char const*;
    using RefCount = int32_t;
    ISafeRecorder(Severity, int32_t) {}
    virtual ~ISafeRecorder() = default;
    virtual int32_t getNbErrors() const noexcept = 0;
    virtual ErrorCode getErrorCode(int32_t) const noexcept = 0;
    virtual ErrorDesc getErrorDesc(int32_t) const noexcept = 0;
    virtual bool hasOverflowed() const noexcept = 0;
    virtual void clear() noexcept = 0;
    virtual bool reportError(ErrorCode, ErrorDesc) noexcept = 0;
    virtual bool reportInfo(ErrorDesc) noexcept = 0;
    virtual bool reportWarn(ErrorDesc) noexcept = 0;
    virtual bool reportVerbose(ErrorDesc) noexcept = 0;
    virtual bool reportDebug(ErrorDesc) noexcept = 0;
    virtual RefCount incRefCount() noexcept = 0;
    virtual RefCount decRefCount() noexcept = 0;
};
}
