/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a client must understand of a failure: a code and one sentence. One table (fault.c) gives each code
 * its errno, D-Bus error name, REST code and HTTP status, and wrennctl exit status; nobody else chooses
 * those. The innermost fault wins: fault_set() on a set fault keeps the first.
 */

#include "basic/macro.h"

typedef enum FaultCode {
        FAULT_NONE,
        FAULT_INVALID_ARGS,        /* EINVAL     400 invalid_request */
        FAULT_UNAUTHORIZED,        /* EACCES     401 unauthorized; REST only */
        FAULT_ACCESS_DENIED,       /* EPERM      403 forbidden */
        FAULT_NOT_FOUND,           /* ENOENT     404 not_found */
        FAULT_METHOD_NOT_ALLOWED,  /* EOPNOTSUPP 405 invalid_request; REST only */
        FAULT_INVALID_STATE,       /* EBUSY      409 invalid_state */
        FAULT_ALREADY_EXISTS,      /* EEXIST     409 conflict */
        FAULT_TOO_LARGE,           /* E2BIG      413 too_large */
        FAULT_QUOTA_EXCEEDED,      /* EDQUOT     429 quota_exceeded */
        FAULT_NO_CAPACITY,         /* EAGAIN     503 host_unavailable: memory, count */
        FAULT_NO_SPACE,            /* ENOSPC     507 host_unavailable: disk of the host */
        FAULT_NO_KVM,              /* ENODEV     503 host_unavailable */
        FAULT_BACKEND_UNAVAILABLE, /* EHOSTDOWN 503 host_unavailable: no VMM, no kernel, shutting down */
        FAULT_AGENT,               /* EREMOTEIO  502 agent_error: VMM or guest failed */
        FAULT_AGENT_NO_SPACE,      /* ENOSPC     507 agent_error: disk of the guest */
        FAULT_TIMEOUT,             /* ETIMEDOUT  504 agent_error */
        FAULT_CANCELED,            /* ECANCELED  503 host_unavailable */
        FAULT_NO_MEMORY,           /* ENOMEM     503 host_unavailable */
        FAULT_INTERNAL,            /* EIO        500 internal_error */
        _FAULT_CODE_MAX,
        _FAULT_CODE_INVALID = -EINVAL,
} FaultCode;

#define FAULT_MESSAGE_MAX 1024

typedef struct Fault {
        FaultCode code;
        char *message; /* owned */
} Fault;

#define FAULT_NULL ((Fault) {})

void fault_done(Fault *f);

/* Sets code and message if f is not NULL and not set yet. The message is UTF-8 whatever went into it.
 * Returns the negative errno of the code. */
int fault_set(Fault *f, FaultCode code, const char *format, ...) _printf_(3, 4);

/* As fault_set(FAULT_INTERNAL) (or FAULT_NO_MEMORY, FAULT_NO_SPACE for these errnos) with ": <strerror>."
 * appended; returns -abs(error). */
int fault_set_errno(Fault *f, int error, const char *format, ...) _printf_(3, 4);

static inline bool fault_is_set(const Fault *f) {
        return f->code != FAULT_NONE;
}

int fault_errno(FaultCode code);
/* "dev.wrenn.Capsules1.Error.NotFound"; the prefix is BUS_NAME */
const char* fault_bus_name(FaultCode code);
/* also the org.freedesktop.DBus.Error.* names; unknown: FAULT_INTERNAL */
FaultCode fault_from_bus_name(const char *name);
const char* fault_wire_name(FaultCode code); /* "not-found": control.sock and agent JSON */
FaultCode fault_from_wire_name(const char *name);
const char* fault_rest_code(FaultCode code); /* "not_found" */
unsigned fault_http_status(FaultCode code);
int fault_exit_status(FaultCode code); /* of wrennctl: 1, 2, 3, 4 */
