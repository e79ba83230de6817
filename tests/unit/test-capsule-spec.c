/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/capsule-spec.h"
#include "shared/json-field.h"
#include "tests/unit/test.h"

static int parse_capsule(const char *text, CapsuleSpec *ret, Fault *reterr) {
        _cleanup_json_ json_t *body = NULL;
        int r;

        r = json_parse_text(text, strlen(text), &body, reterr);
        return r < 0 ? r : capsule_spec_from_json(body, ret, reterr);
}

static int parse_exec(const char *text, ExecSpec *ret, Fault *reterr) {
        _cleanup_json_ json_t *body = NULL;
        int r;

        r = json_parse_text(text, strlen(text), &body, reterr);
        return r < 0 ? r : exec_spec_from_json(body, ret, reterr);
}

TEST(capsule_defaults_and_values) {
        _cleanup_(capsule_spec_done) CapsuleSpec s = {}, t = {};

        ASSERT_OK(parse_capsule("{\"vcpus\":0,\"memory_mb\":null,\"unknown\":[1]}", &s, NULL));
        ASSERT_TRUE(!s.template && s.vcpus == 0 && s.memory_bytes == 0 && !s.metadata);

        ASSERT_OK(parse_capsule(
                        "{\"template\":\"minimal\",\"vcpus\":2,\"memory_mb\":256,\"disk_size_mb\":5120,"
                        "\"timeout_sec\":60,\"metadata\":{\"a\":\"b=c\"}}",
                        &t, NULL));
        ASSERT_STREQ(t.template, "minimal");
        ASSERT_EQ(t.vcpus, 2);
        ASSERT_EQ(t.memory_bytes, 256 * MIB);
        ASSERT_EQ(t.disk_bytes, 5 * GIB);
        ASSERT_EQ(t.timeout_usec, 60 * USEC_PER_SEC);
        ASSERT_STREQ(t.metadata[0], "a=b=c");
}

TEST(capsule_refusals) {
        static const char *const texts[] = {
                "",
                "[]",
                "1",
                "\"x\"",
                "{",
                "{} x",
                "{\"vcpus\":1,\"vcpus\":1}",
                "{\"template\":\"../x\"}",
                "{\"template\":\"\"}",
                "{\"template\":1}",
                "{\"template\":\"-x\"}",
                "{\"template\":\"a/b\"}",
                "{\"template\":\"a\\u0000b\"}",
                "{\"template\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
                "{\"vcpus\":-1}",
                "{\"vcpus\":33}",
                "{\"vcpus\":1.0}",
                "{\"vcpus\":\"2\"}",
                "{\"vcpus\":true}",
                "{\"vcpus\":2147483648}",
                "{\"vcpus\":4294967297}",
                "{\"vcpus\":9223372036854775808}",
                "{\"vcpus\":1e999}",
                "{\"memory_mb\":127}",
                "{\"memory_mb\":262145}",
                "{\"memory_mb\":17592186044416}",
                "{\"memory_mb\":9223372036854775807}",
                "{\"disk_size_mb\":63}",
                "{\"disk_size_mb\":2097153}",
                "{\"timeout_sec\":-1}",
                "{\"timeout_sec\":2678401}",
                "{\"timeout_sec\":9223372036854775807}",
                "{\"metadata\":[]}",
                "{\"metadata\":{\"a\":1}}",
                "{\"metadata\":{\"agent_version\":\"x\"}}",
        };

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_(capsule_spec_done) CapsuleSpec s = {};
                _cleanup_(fault_done) Fault fault = FAULT_NULL;

                if (parse_capsule(texts[i], &s, &fault) != -EINVAL || fault.code != FAULT_INVALID_ARGS)
                        fail_msg("'%s' is not refused", texts[i]);
        }
}

TEST(exec_to_agent) {
        _cleanup_(exec_spec_done) ExecSpec s = {}, t = {};
        _cleanup_free_ char *text = NULL;

        ASSERT_OK(parse_exec(
                        "{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"true\"],\"background\":false,\"timeout_sec\":30,"
                        "\"envs\":{\"A\":\"b\"},\"cwd\":\"/tmp\",\"user\":\"me\",\"tag\":\"ignored\"}",
                        &s, NULL));
        text = exec_spec_to_agent(&s);
        ASSERT_STREQ(text,
                     "{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"true\"],\"env\":{\"A\":\"b\"},\"cwd\":\"/tmp\","
                     "\"user\":\"me\",\"timeout_usec\":30000000,\"stdin\":false,\"on_disconnect\":\"kill\",\"shell_fallback\":true,\"batch\":true}");

        free(text);
        ASSERT_OK(parse_exec("{\"cmd\":\"x\",\"background\":true,\"tag\":\"t\",\"envs\":{}}", &t, NULL));
        text = exec_spec_to_agent(&t);
        ASSERT_STREQ(text,
                     "{\"cmd\":\"x\",\"args\":[],\"env\":{},\"tag\":\"t\",\"timeout_usec\":0,\"stdin\":false,"
                     "\"on_disconnect\":\"keep\",\"shell_fallback\":true,\"batch\":false}");
}

TEST(exec_refusals) {
        static const struct {
                const char *text, *message; /* NULL: any */
        } cases[] = {
                { "{}", "cmd is required" },
                { "{\"cmd\":\"\"}", "cmd is required" },
                { "{\"cmd\":null}", "cmd is required" },
                { "{\"cmd\":1}", NULL },
                { "{\"cmd\":\"a\\u0000b\"}", NULL },
                { "{\"cmd\":\"a\",\"cmd\":\"b\"}", NULL },
                { "{\"cmd\":\"a\",\"args\":\"b\"}", NULL },
                { "{\"cmd\":\"a\",\"args\":[1]}", NULL },
                { "{\"cmd\":\"a\",\"timeout_sec\":-1}", NULL },
                { "{\"cmd\":\"a\",\"timeout_sec\":2678401}", NULL },
                { "{\"cmd\":\"a\",\"timeout_sec\":1.5}", NULL },
                { "{\"cmd\":\"a\",\"background\":1}", NULL },
                { "{\"cmd\":\"a\",\"background\":\"true\"}", NULL },
                { "{\"cmd\":\"a\",\"envs\":[]}", NULL },
                { "{\"cmd\":\"a\",\"envs\":{\"\":\"x\"}}", NULL },
                { "{\"cmd\":\"a\",\"envs\":{\"A=B\":\"x\"}}", NULL },
                { "{\"cmd\":\"a\",\"envs\":{\"A\":null}}", NULL },
                { "{\"cmd\":\"a\",\"cwd\":7}", NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(exec_spec_done) ExecSpec s = {};
                _cleanup_(fault_done) Fault fault = FAULT_NULL;

                if (parse_exec(cases[i].text, &s, &fault) != -EINVAL)
                        fail_msg("'%s' is not refused", cases[i].text);
                if (cases[i].message)
                        ASSERT_FAULT(fault, FAULT_INVALID_ARGS, cases[i].message);
        }
}

TEST(exec_sizes) {
        size_t n = ARGV_ENV_BYTES_MAX;
        _cleanup_free_ char *text = malloc(n + 64);
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(exec_spec_done) ExecSpec s = {}, t = {};

        memset(text, 'x', n + 64);
        memcpy(text, "{\"cmd\":\"", 8);
        strcpy(text + 8 + n - 1, "\"}");
        ASSERT_OK(parse_exec(text, &s, NULL));
        strcpy(text + 8 + n - 1, "x\"}");
        ASSERT_EQ(parse_exec(text, &t, &fault), -EINVAL);
}
