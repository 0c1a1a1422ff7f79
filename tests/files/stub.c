/* What looking for GPUs asks of NVIDIA's driver and libraries, with the answers that variables give. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

#ifdef DRIVER
int cuInit(unsigned flags) {
    (void)flags;
    if (getenv("STUB_HANGS")) sleep(600);
    if (getenv("STUB_CRASHES")) abort();
    return number("STUB_INIT", 0);
}
int cuDriverGetVersion(int *version) { *version = number("STUB_CUDA", 13000); return 0; }
int cuDeviceGetCount(int *count) { *count = number("STUB_GPUS", 2); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "Stub %d", device); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)8 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == 75 ? number("STUB_MAJOR", 9) : attribute == 76 ? 0 : 132;
    return 0;
}
int cuGetErrorString(int error, const char **text) { (void)error; *text = "nothing works"; return 0; }
#endif
#ifdef NVRTC
int nvrtcVersion(int *major, int *minor) { *major = 13; *minor = 0; return 0; }
#endif
#ifdef CUBLASLT
size_t cublasLtGetVersion(void) { return 130102; }
#endif
#ifdef CUDNN
size_t cudnnGetVersion(void) { return number("STUB_CUDNN", 91400); }
size_t cudnnGetCudartVersion(void) { return number("STUB_CUDNN_CUDA", 13000); }
#endif
