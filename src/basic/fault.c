/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The one table of failures; see fault.h. Rows are indexed by code, a test walks them. */

#include <stdarg.h>
#include <stdio.h>

#include "basic/fault.h"
#include "basic/strings.h"
#include "config.h"

#define ERROR_NAME(name) BUS_NAME ".Error." name

static const struct {
        int error;
        unsigned http_status;
        int exit_status;
        const char *bus_name;
        const char *wire_name;
        const char *rest_code;
} fault_table[_FAULT_CODE_MAX] = {
        [FAULT_NONE] = { 0, 200, 0, ERROR_NAME("None"), "none", "ok" },
        [FAULT_INVALID_ARGS] = { -EINVAL, 400, 2, ERROR_NAME("InvalidArgs"), "invalid-args",
                                 "invalid_request" },
        [FAULT_UNAUTHORIZED] = { -EACCES, 401, 1, ERROR_NAME("Unauthorized"), "unauthorized",
                                 "unauthorized" },
        [FAULT_ACCESS_DENIED] = { -EPERM, 403, 1, ERROR_NAME("AccessDenied"), "access-denied", "forbidden" },
        [FAULT_NOT_FOUND] = { -ENOENT, 404, 4, ERROR_NAME("NotFound"), "not-found", "not_found" },
        [FAULT_METHOD_NOT_ALLOWED] = { -EOPNOTSUPP, 405, 1, ERROR_NAME("MethodNotAllowed"),
                                       "method-not-allowed", "invalid_request" },
        [FAULT_INVALID_STATE] = { -EBUSY, 409, 3, ERROR_NAME("InvalidState"), "invalid-state",
                                  "invalid_state" },
        [FAULT_ALREADY_EXISTS] = { -EEXIST, 409, 1, ERROR_NAME("AlreadyExists"), "already-exists",
                                   "conflict" },
        [FAULT_TOO_LARGE] = { -E2BIG, 413, 1, ERROR_NAME("TooLarge"), "too-large", "too_large" },
        [FAULT_QUOTA_EXCEEDED] = { -EDQUOT, 429, 1, ERROR_NAME("QuotaExceeded"), "quota-exceeded",
                                   "quota_exceeded" },
        [FAULT_NO_CAPACITY] = { -EAGAIN, 503, 1, ERROR_NAME("NoCapacity"), "no-capacity",
                                "host_unavailable" },
        [FAULT_NO_SPACE] = { -ENOSPC, 507, 1, ERROR_NAME("NoSpace"), "no-space", "host_unavailable" },
        [FAULT_NO_KVM] = { -ENODEV, 503, 1, ERROR_NAME("NoKVM"), "no-kvm", "host_unavailable" },
        [FAULT_BACKEND_UNAVAILABLE] = { -EHOSTDOWN, 503, 1, ERROR_NAME("BackendUnavailable"),
                                        "backend-unavailable", "host_unavailable" },
        [FAULT_AGENT] = { -EREMOTEIO, 502, 1, ERROR_NAME("AgentUnreachable"), "agent", "agent_error" },
        [FAULT_AGENT_NO_SPACE] = { -ENOSPC, 507, 1, ERROR_NAME("AgentNoSpace"), "agent-no-space",
                                   "agent_error" },
        [FAULT_TIMEOUT] = { -ETIMEDOUT, 504, 1, ERROR_NAME("Timeout"), "timeout", "agent_error" },
        [FAULT_CANCELED] = { -ECANCELED, 503, 1, ERROR_NAME("Canceled"), "canceled", "host_unavailable" },
        [FAULT_NO_MEMORY] = { -ENOMEM, 503, 1, ERROR_NAME("NoMemory"), "no-memory", "host_unavailable" },
        [FAULT_INTERNAL] = { -EIO, 500, 1, ERROR_NAME("Internal"), "internal", "internal_error" },
};

void fault_done(Fault *f) {
        free(f->message);
        *f = FAULT_NULL;
}

static int fault_setv(Fault *f, FaultCode code, const char *suffix, const char *format, va_list ap)
                __attribute__((format(printf, 4, 0)));

static int fault_setv(Fault *f, FaultCode code, const char *suffix, const char *format, va_list ap) {
        char buffer[FAULT_MESSAGE_MAX];
        int n;

        assert(code > FAULT_NONE && code < _FAULT_CODE_MAX);

        if (!f || fault_is_set(f))
                return fault_errno(code);

        n = vsnprintf(buffer, sizeof(buffer), format, ap);
        if (n < 0)
                buffer[0] = 0;
        else if ((size_t) n < sizeof(buffer))
                (void) snprintf(buffer + n, sizeof(buffer) - (size_t) n, "%s", suffix);

        /* a cut in the middle of a character would make the text unfit for D-Bus and JSON… */
        buffer[utf8_complete_prefix(buffer, strlen(buffer))] = 0;

        /* …and so would what others said, quoted */
        *f = (Fault) {
                .code = code,
                .message = utf8_is_valid(buffer, strlen(buffer))
                                           ? strdup(buffer)
                                           : escape_for_display(buffer, strlen(buffer)),
        };
        return fault_errno(code);
}

int fault_set(Fault *f, FaultCode code, const char *format, ...) {
        va_list ap;
        int r;

        va_start(ap, format);
        r = fault_setv(f, code, "", format, ap);
        va_end(ap);
        return r;
}

int fault_set_errno(Fault *f, int error, const char *format, ...) {
        char suffix[128], buffer[96];
        FaultCode code;
        va_list ap;

        error = abs(error);
        code = error == ENOMEM ? FAULT_NO_MEMORY : error == ENOSPC ? FAULT_NO_SPACE : FAULT_INTERNAL;
        (void) snprintf(suffix, sizeof(suffix), ": %s.", strerror_r(error, buffer, sizeof(buffer)));

        va_start(ap, format);
        (void) fault_setv(f, code, suffix, format, ap);
        va_end(ap);
        return -error;
}

int fault_errno(FaultCode code) {
        assert(code >= 0 && code < _FAULT_CODE_MAX);
        return fault_table[code].error;
}

const char* fault_bus_name(FaultCode code) {
        assert(code >= 0 && code < _FAULT_CODE_MAX);
        return fault_table[code].bus_name;
}

FaultCode fault_from_bus_name(const char *name) {
        static const struct {
                const char *name; /* behind "org.freedesktop.DBus.Error." */
                FaultCode code;
        } standard[] = {
                { "AccessDenied", FAULT_ACCESS_DENIED },
                { "AuthFailed", FAULT_ACCESS_DENIED },
                { "InteractiveAuthorizationRequired", FAULT_ACCESS_DENIED },
                { "InvalidArgs", FAULT_INVALID_ARGS },
                { "InvalidSignature", FAULT_INVALID_ARGS },
                { "UnknownObject", FAULT_NOT_FOUND },
                { "FileNotFound", FAULT_NOT_FOUND },
                { "FileExists", FAULT_ALREADY_EXISTS },
                { "NoMemory", FAULT_NO_MEMORY },
                { "LimitsExceeded", FAULT_NO_CAPACITY },
                { "ServiceUnknown", FAULT_BACKEND_UNAVAILABLE },
                { "NameHasNoOwner", FAULT_BACKEND_UNAVAILABLE },
                { "Disconnected", FAULT_BACKEND_UNAVAILABLE },
                { "NoReply", FAULT_TIMEOUT },
                { "Timeout", FAULT_TIMEOUT },
                { "TimedOut", FAULT_TIMEOUT },
        };
        const char *rest;

        if (!name)
                return FAULT_INTERNAL;

        for (FaultCode i = FAULT_NONE + 1; i < _FAULT_CODE_MAX; i++)
                if (streq(fault_table[i].bus_name, name))
                        return i;

        rest = startswith(name, "org.freedesktop.DBus.Error.");
        for (size_t i = 0; rest && i < ELEMENTSOF(standard); i++)
                if (streq(standard[i].name, rest))
                        return standard[i].code;

        return FAULT_INTERNAL;
}

const char* fault_wire_name(FaultCode code) {
        assert(code >= 0 && code < _FAULT_CODE_MAX);
        return fault_table[code].wire_name;
}

FaultCode fault_from_wire_name(const char *name) {
        for (FaultCode i = FAULT_NONE + 1; name && i < _FAULT_CODE_MAX; i++)
                if (streq(fault_table[i].wire_name, name))
                        return i;

        return FAULT_INTERNAL;
}

const char* fault_rest_code(FaultCode code) {
        assert(code >= 0 && code < _FAULT_CODE_MAX);
        return fault_table[code].rest_code;
}

unsigned fault_http_status(FaultCode code) {
        assert(code >= 0 && code < _FAULT_CODE_MAX);
        return fault_table[code].http_status;
}

int fault_exit_status(FaultCode code) {
        assert(code >= 0 && code < _FAULT_CODE_MAX);
        return fault_table[code].exit_status;
}
