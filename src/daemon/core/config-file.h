/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * wrennd.conf(5): one main file and drop-ins, /etc over /run over /usr/lib, sections and keys from one
 * table. A key that nobody knows or a value that cannot be read is a warning with file and line; a file that
 * others may write is refused.
 */

#include "basic/fault.h"
#include "basic/macro.h"

typedef enum Backend {
        BACKEND_AUTO,
        BACKEND_QEMU,
        BACKEND_FIRECRACKER,
        _BACKEND_MAX,
        _BACKEND_INVALID = -EINVAL,
} Backend;

typedef enum Accelerator {
        ACCELERATOR_AUTO,
        ACCELERATOR_KVM,
        ACCELERATOR_TCG,
        _ACCELERATOR_MAX,
        _ACCELERATOR_INVALID = -EINVAL,
} Accelerator;

/* How a terminal's bytes travel in a WebSocket (api.md §2.16). */
typedef enum PtyFraming {
        PTY_FRAMING_BINARY,
        PTY_FRAMING_JSON,
        _PTY_FRAMING_MAX,
        _PTY_FRAMING_INVALID = -EINVAL,
} PtyFraming;

typedef struct Config {
        /* [Daemon] */
        Backend backend;
        Accelerator accelerator;
        bool allow_emulation;
        uint32_t capsules_max;
        uint64_t memory_budget_bytes; /* sum of MemoryMax= of all living capsules */
        /* [Capsule] */
        char *default_template;
        uint32_t default_vcpus;
        uint64_t default_memory_bytes;
        uint64_t default_disk_bytes;
        uint64_t memory_overhead_bytes; /* of the VMM and the monitor, on top of the guest's memory */
        uint32_t tasks_max;
        uint32_t cpu_weight; /* 0: not set */
        uint64_t stop_timeout_usec;
        uint64_t exec_max_usec;
        uint32_t uid_first, uid_last;
        /* [Network] */
        char *address_pool4; /* "10.11.0.0/16" */
        char *dns;           /* "host" or addresses */
        /* [API] */
        PtyFraming pty_framing;
} Config;

/* Names as in the file, "auto"…; the parsers return _X_INVALID for others. */
const char* backend_to_string(Backend b);
Backend backend_from_string(const char *s);
const char* accelerator_to_string(Accelerator a);
Accelerator accelerator_from_string(const char *s);
const char* pty_framing_to_string(PtyFraming f); /* "" of _PTY_FRAMING_INVALID */
PtyFraming pty_framing_from_string(const char *s);

/* Fills the built-in defaults. 0 or -ENOMEM. */
int config_init(Config *c);
/* Empties the struct. */
void config_done(Config *c);

/*
 * Reads everything below the directories, lowest priority first (NULL: /usr/lib/wrenn, /run/wrenn,
 * /etc/wrenn), into a fresh *ret. Absent files are fine. -EPERM with a fault for a file others may write;
 * -ENOMEM; -errno of an unreadable file.
 */
int config_load(const char *const *dirs, Config *ret, Fault *reterr);
/* The same for one text, for tests and fuzzing; name is used in warnings. Returns the number of lines that
 * were ignored. */
int config_parse(Config *c, const char *name, char *text);
