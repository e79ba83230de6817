/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One virtual machine monitor process: what it is to run (VmmConfig), the table each driver fills (VmmOps)
 * and what it tells. A driver knows its program's command line and control protocol; it knows neither
 * control.sock nor the agent. It ends in exactly one on_exited, whatever happened, once vmm_start()
 * succeeded.
 */

#include <systemd/sd-event.h>

#include "basic/fault.h"
#include "basic/limits.h"
#include "shared/json-field.h"
#include "shared/protocol.h"

#define VMM_START_USEC (30 * USEC_PER_SEC) /* from exec to the first answer of its control protocol */
#define VMM_STATUS_LEN 32U

typedef struct VmmOps VmmOps;

/* The head of each driver's own struct. */
typedef struct Vmm {
        const VmmOps *ops;
} Vmm;

typedef struct VmmDisk {
        char *path; /* inside the jail */
        bool read_only;
} VmmDisk;

typedef struct VmmConfig {
        char *backend;     /* "qemu" */
        char *accelerator; /* "tcg" or "kvm" */
        uint32_t vcpus;
        uint64_t memory_bytes;
        char *vmm; /* program */
        char *kernel;
        char *initrd;
        VmmDisk *disks; /* in the order the guest sees them; the first is "base", the second "layer" */
        size_t n_disks;
        char *mac;        /* NULL: no network */
        uint64_t tsc_khz; /* host TSC rate for an emulated guest; 0: unknown */
        json_t *identity; /* body of PUT /identity but for time and entropy; NULL: {} */
} VmmConfig;

void vmm_config_done(VmmConfig *c);

/* The member 'config' of verb start; names the member at fault. *ret must be zeroed. */
int vmm_config_parse(json_t *config, VmmConfig *ret, Fault *reterr);

/* How a VMM ended. */
typedef struct VmmEnd {
        EndReason reason;
        char status[VMM_STATUS_LEN]; /* "exit 1", "signal KILL" */
        char *message;               /* owned; one sentence, safe to display */
} VmmEnd;

void vmm_end_done(VmmEnd *e);

typedef struct VmmHandlers {
        /* r 0: it runs and answers. r < 0: it did not start, reterr says why; on_exited follows. */
        void (*on_started)(Vmm *v, int r, const Fault *fault, void *userdata);
        /* The process is gone and reaped. Last call; free the Vmm here or later. end: moved out by the
         * handler or freed with v. */
        void (*on_exited)(Vmm *v, VmmEnd *end, void *userdata);
} VmmHandlers;

struct VmmOps {
        const char *backend;
        /* Spawns the process. Takes tap_fd (or -EBADF) on success. handlers are borrowed. */
        int (*start)(sd_event *e, const VmmConfig *c, int tap_fd, const VmmHandlers *handlers,
                     void *userdata, Vmm **ret, Fault *reterr);
        /* SIGKILL; reason is what on_exited reports. Idempotent: the first reason stays. */
        int (*kill)(Vmm *v, EndReason reason);
        /* Its end is wanted and comes from the guest; on_exited reports reason unless it is a crash. */
        void (*expect_exit)(Vmm *v, EndReason reason);
        pid_t (*pid)(const Vmm *v);
        /* Ends of the streams to the guest's agent port and serial console: TAKE_FD by the caller, -EBADF
         * when taken. */
        int (*take_agent_fd)(Vmm *v);
        int (*take_console_fd)(Vmm *v);
        Vmm *(*free)(Vmm *v); /* kills and forgets */
};

extern const VmmOps vmm_qemu_ops;

/* NULL for an unknown name. */
const VmmOps* vmm_ops_find(const char *backend);

static inline Vmm* vmm_free(Vmm *v) {
        return v ? v->ops->free(v) : NULL;
}

/* The descriptors of the child as its command line names them. */
typedef struct QemuFds {
        int qmp;
        int agent;
        int console;
        int tap; /* or -EBADF */
} QemuFds;

/* The command line of QEMU; NULL on out of memory. Pure: a golden test compares it. */
char** qemu_command_line(const VmmConfig *c, const QemuFds *fds);

/* The kernel's command line; NULL on out of memory. */
char* qemu_kernel_line(const VmmConfig *c);
