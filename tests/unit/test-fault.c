/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/fault.h"
#include "basic/strings.h"
#include "config.h"
#include "tests/unit/test.h"

static const struct {
        FaultCode code;
        int error;
        unsigned http;
        int exit;
        const char *bus, *wire, *rest;
} cases[] = {
        { FAULT_INVALID_ARGS, -EINVAL, 400, 2, "InvalidArgs", "invalid-args", "invalid_request" },
        { FAULT_UNAUTHORIZED, -EACCES, 401, 1, "Unauthorized", "unauthorized", "unauthorized" },
        { FAULT_ACCESS_DENIED, -EPERM, 403, 1, "AccessDenied", "access-denied", "forbidden" },
        { FAULT_NOT_FOUND, -ENOENT, 404, 4, "NotFound", "not-found", "not_found" },
        { FAULT_METHOD_NOT_ALLOWED, -EOPNOTSUPP, 405, 1, "MethodNotAllowed", "method-not-allowed",
          "invalid_request" },
        { FAULT_INVALID_STATE, -EBUSY, 409, 3, "InvalidState", "invalid-state", "invalid_state" },
        { FAULT_ALREADY_EXISTS, -EEXIST, 409, 1, "AlreadyExists", "already-exists", "conflict" },
        { FAULT_TOO_LARGE, -E2BIG, 413, 1, "TooLarge", "too-large", "too_large" },
        { FAULT_QUOTA_EXCEEDED, -EDQUOT, 429, 1, "QuotaExceeded", "quota-exceeded", "quota_exceeded" },
        { FAULT_NO_CAPACITY, -EAGAIN, 503, 1, "NoCapacity", "no-capacity", "host_unavailable" },
        { FAULT_NO_SPACE, -ENOSPC, 507, 1, "NoSpace", "no-space", "host_unavailable" },
        { FAULT_NO_KVM, -ENODEV, 503, 1, "NoKVM", "no-kvm", "host_unavailable" },
        { FAULT_BACKEND_UNAVAILABLE, -EHOSTDOWN, 503, 1, "BackendUnavailable", "backend-unavailable",
          "host_unavailable" },
        { FAULT_AGENT, -EREMOTEIO, 502, 1, "AgentUnreachable", "agent", "agent_error" },
        { FAULT_AGENT_NO_SPACE, -ENOSPC, 507, 1, "AgentNoSpace", "agent-no-space", "agent_error" },
        { FAULT_TIMEOUT, -ETIMEDOUT, 504, 1, "Timeout", "timeout", "agent_error" },
        { FAULT_CANCELED, -ECANCELED, 503, 1, "Canceled", "canceled", "host_unavailable" },
        { FAULT_NO_MEMORY, -ENOMEM, 503, 1, "NoMemory", "no-memory", "host_unavailable" },
        { FAULT_INTERNAL, -EIO, 500, 1, "Internal", "internal", "internal_error" },
};

TEST(table) {
        ASSERT_EQ(ELEMENTSOF(cases), _FAULT_CODE_MAX - 1);

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *bus = strjoin(BUS_NAME, ".Error.", cases[i].bus);

                ASSERT_EQ(cases[i].code, i + 1);
                ASSERT_EQ(fault_errno(cases[i].code), cases[i].error);
                ASSERT_EQ(fault_http_status(cases[i].code), cases[i].http);
                ASSERT_EQ(fault_exit_status(cases[i].code), cases[i].exit);
                ASSERT_STREQ(fault_bus_name(cases[i].code), bus);
                ASSERT_STREQ(fault_wire_name(cases[i].code), cases[i].wire);
                ASSERT_STREQ(fault_rest_code(cases[i].code), cases[i].rest);
                ASSERT_EQ(fault_from_bus_name(bus), cases[i].code);
                ASSERT_EQ(fault_from_wire_name(cases[i].wire), cases[i].code);
        }
}

TEST(foreign_names) {
        static const struct {
                const char *name;
                FaultCode code;
        } names[] = {
                { "org.freedesktop.DBus.Error.AccessDenied", FAULT_ACCESS_DENIED },
                { "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", FAULT_ACCESS_DENIED },
                { "org.freedesktop.DBus.Error.InvalidArgs", FAULT_INVALID_ARGS },
                { "org.freedesktop.DBus.Error.UnknownObject", FAULT_NOT_FOUND },
                { "org.freedesktop.DBus.Error.NoReply", FAULT_TIMEOUT },
                { "org.freedesktop.DBus.Error.ServiceUnknown", FAULT_BACKEND_UNAVAILABLE },
                { "org.freedesktop.DBus.Error.Nothing", FAULT_INTERNAL },
                { "dev.wrenn.Capsules1.Error.None", FAULT_INTERNAL },
                { "", FAULT_INTERNAL },
                { NULL, FAULT_INTERNAL },
        };

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                ASSERT_EQ(fault_from_bus_name(names[i].name), names[i].code);

        ASSERT_EQ(fault_from_wire_name("none"), FAULT_INTERNAL);
        ASSERT_EQ(fault_from_wire_name(NULL), FAULT_INTERNAL);
}

TEST(innermost_wins) {
        _cleanup_(fault_done) Fault f = FAULT_NULL;

        ASSERT_EQ(fault_set(&f, FAULT_NOT_FOUND, "No capsule '%s'.", "x"), -ENOENT);
        ASSERT_EQ(fault_set(&f, FAULT_INTERNAL, "Something else."), -EIO);
        ASSERT_FAULT(f, FAULT_NOT_FOUND, "No capsule 'x'.");

        fault_done(&f);
        ASSERT_FALSE(fault_is_set(&f));
        ASSERT_EQ(fault_set(NULL, FAULT_NO_KVM, "x"), -ENODEV);
}

TEST(errnos) {
        static const struct {
                int error;
                FaultCode code;
                const char *message;
        } errors[] = {
                { -ENOMEM, FAULT_NO_MEMORY, "Failed to open 'f': Cannot allocate memory." },
                { ENOSPC, FAULT_NO_SPACE, "Failed to open 'f': No space left on device." },
                { -EACCES, FAULT_INTERNAL, "Failed to open 'f': Permission denied." },
        };

        for (size_t i = 0; i < ELEMENTSOF(errors); i++) {
                _cleanup_(fault_done) Fault f = FAULT_NULL;

                ASSERT_EQ(fault_set_errno(&f, errors[i].error, "Failed to open '%s'", "f"),
                          -abs(errors[i].error));
                ASSERT_FAULT(f, errors[i].code, errors[i].message);
        }
}

TEST(message_is_cut_between_characters) {
        _cleanup_(fault_done) Fault f = FAULT_NULL;
        char text[2 * FAULT_MESSAGE_MAX + 1];

        for (size_t i = 0; i < 2 * FAULT_MESSAGE_MAX; i += 2)
                memcpy(text + i, "ä", 2);
        text[sizeof(text) - 1] = 0;

        (void) fault_set(&f, FAULT_INTERNAL, "%s", text);
        ASSERT_EQ(strlen(f.message), FAULT_MESSAGE_MAX - 2);
        ASSERT_TRUE(utf8_is_valid(f.message, strlen(f.message)));
}

TEST(message_is_utf8) {
        _cleanup_(fault_done) Fault f = FAULT_NULL;

        (void) fault_set(&f, FAULT_NOT_FOUND, "No capsule '%s'.", "\xff\n");
        ASSERT_FAULT(f, FAULT_NOT_FOUND, "No capsule '\\xff\\n'.");
}
