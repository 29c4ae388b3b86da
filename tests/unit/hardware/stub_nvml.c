/* A libnvidia-ml.so.1 that answers from a script: the file named by NVML_SCRIPT, read again at each call.
   A line is `key value`; the value `!15` makes the call fail with NVML error 15. A missing key is `!3`, not supported. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process;

static int initialized = 0;

static int look_up(const char *wanted, char *value) {
    char line[512], key[128];
    FILE *script = fopen(getenv("NVML_SCRIPT"), "r");
    int result = 3;
    if (!script) return 999;
    while (fgets(line, sizeof line, script)) {
        int used = 0;
        if (sscanf(line, "%127s %n", key, &used) != 1 || strcmp(key, wanted)) continue;
        line[strcspn(line, "\n")] = 0;
        strcpy(value, line + used);
        result = value[0] == '!' ? atoi(value + 1) : 0;
        break;
    }
    fclose(script);
    return result;
}

static int ask(void *device, const char *what, char *value) {
    char key[128];
    if (!initialized) return 1;
    snprintf(key, sizeof key, "%ld.%s", (long)device - 1, what);
    return look_up(key, value);
}

static int number(void *device, const char *what, unsigned *out) {
    char value[512];
    int result = ask(device, what, value);
    if (!result) *out = (unsigned)atol(value);
    return result;
}

int nvmlInitWithFlags(unsigned flags) {
    char value[512];
    int result = look_up("init", value);
    (void)flags;
    if (!result) initialized = 1;
    return result;
}

int nvmlShutdown(void) { int was = initialized; initialized = 0; return was ? 0 : 1; }

const char *nvmlErrorString(int code) { return code == 999 ? "Unknown Error" : "Stub Error"; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    char value[512];
    int result = initialized ? look_up("count", value) : 1;
    if (!result) *count = (unsigned)atol(value);
    return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    char value[512];
    int result;
    *device = (void *)((long)index + 1);
    result = ask(*device, "handle", value);
    return result == 3 ? 0 : result;
}

int nvmlDeviceGetName(void *device, char *name, unsigned length) {
    char value[512];
    int result = ask(device, "name", value);
    if (!result) snprintf(name, length, "%s", value);
    return result;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    char value[512];
    int result = ask(device, "uuid", value);
    if (!result) snprintf(uuid, length, "%s", value);
    return result;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_v1 *memory) {
    char value[512];
    int result = ask(device, "memory", value);
    if (!result) sscanf(value, "%llu %llu %llu", &memory->total, &memory->free, &memory->used);
    return result;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *memory) {
    char value[512];
    int result = ask(device, "memory2", value);
    if (!result && memory->version != 0x02000028) return 25;
    if (!result) sscanf(value, "%llu %llu %llu", &memory->total, &memory->free, &memory->used);
    return result;
}

int nvmlDeviceGetUtilizationRates(void *device, utilization *rates) {
    rates->memory = 0;
    return number(device, "utilization", &rates->gpu);
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    (void)sensor;
    return number(device, "temperature", celsius);
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    char value[512];
    int result = initialized ? look_up("driver", value) : 1;
    if (!result) snprintf(version, length, "%s", value);
    return result;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    char value[512];
    int result = initialized ? look_up("cuda", value) : 1;
    if (!result) *version = atoi(value);
    return result;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    char value[512];
    int result = ask(device, "capability", value);
    if (!result) sscanf(value, "%d %d", major, minor);
    return result;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { return number(device, "power", milliwatts); }

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts) { return number(device, "limit", milliwatts); }

static int running(void *device, const char *what, unsigned *count, process *out) {
    char value[512], *entry, *rest;
    int result = ask(device, what, value);
    unsigned capacity = *count, found = 0;
    if (result) return result;
    for (entry = strtok_r(value, " ", &rest); entry; entry = strtok_r(NULL, " ", &rest), found++)
        if (out && found < capacity) {
            long long used = 0;
            memset(&out[found], 0, sizeof *out);
            sscanf(entry, "%u:%lld", &out[found].pid, &used);
            out[found].used = (unsigned long long)used;
        }
    *count = found;
    return found > capacity ? 7 : 0;
}

#ifdef OLD
#define COMPUTING nvmlDeviceGetComputeRunningProcesses_v2
#define DRAWING nvmlDeviceGetGraphicsRunningProcesses_v2
#else
#define COMPUTING nvmlDeviceGetComputeRunningProcesses_v3
#define DRAWING nvmlDeviceGetGraphicsRunningProcesses_v3
#endif

int COMPUTING(void *device, unsigned *count, process *out) { return running(device, "processes", count, out); }

int DRAWING(void *device, unsigned *count, process *out) { return running(device, "drawing", count, out); }
