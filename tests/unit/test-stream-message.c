/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/limits.h"
#include "rest/stream-message.h"
#include "tests/unit/test.h"

static int parse(const char *text, PtyMessage *ret) {
        return pty_message_from_json(text, strlen(text), ret, NULL);
}

TEST(types) {
        static const struct {
                const char *text;
                int r;
                PtyMessageType type;
        } cases[] = {
                { "{\"type\":\"start\"}", 0, PTY_MESSAGE_START },
                { "{\"type\":\"connect\",\"tag\":\"pty-1\"}", 0, PTY_MESSAGE_CONNECT },
                { "{\"type\":\"input\",\"data\":\"eA==\"}", 0, PTY_MESSAGE_INPUT },
                { "{\"type\":\"input\",\"data\":\"\"}", 0, PTY_MESSAGE_INPUT },
                { "{\"type\":\"resize\",\"cols\":1,\"rows\":4096}", 0, PTY_MESSAGE_RESIZE },
                { "{\"type\":\"kill\"}", 0, PTY_MESSAGE_KILL },
                { "{\"type\":\"pong\"}", 0, _PTY_MESSAGE_TYPE_INVALID },
                { "{\"type\":1}", 0, _PTY_MESSAGE_TYPE_INVALID },
                { "{}", 0, _PTY_MESSAGE_TYPE_INVALID },
                { "", -EINVAL, 0 },
                { "[]", -EINVAL, 0 },
                { "{\"type\":\"connect\"}", -EINVAL, PTY_MESSAGE_CONNECT },
                { "{\"type\":\"connect\",\"tag\":\"\"}", -EINVAL, PTY_MESSAGE_CONNECT },
                { "{\"type\":\"input\"}", -EINVAL, PTY_MESSAGE_INPUT },
                { "{\"type\":\"input\",\"data\":\"%\"}", -EINVAL, PTY_MESSAGE_INPUT },
                { "{\"type\":\"resize\",\"cols\":0,\"rows\":1}", -EINVAL, PTY_MESSAGE_RESIZE },
                { "{\"type\":\"resize\",\"cols\":1}", -EINVAL, PTY_MESSAGE_RESIZE },
                { "{\"type\":\"resize\",\"cols\":1,\"rows\":4097}", -EINVAL, PTY_MESSAGE_RESIZE },
                { "{\"type\":\"start\",\"cols\":4097}", -EINVAL, PTY_MESSAGE_START },
                { "{\"type\":\"start\",\"args\":1}", -EINVAL, PTY_MESSAGE_START },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(pty_message_done) PtyMessage m = {};

                if (parse(cases[i].text, &m) != cases[i].r || m.type != cases[i].type)
                        fail_msg("'%s' is read wrongly", cases[i].text);
        }
}

TEST(start_of_a_terminal) {
        _cleanup_(pty_message_done) PtyMessage m = {}, full = {};

        ASSERT_OK(parse("{\"type\":\"start\",\"cols\":0,\"cmd\":\"\"}", &m));
        ASSERT_STREQ(m.spec.cmd, "/bin/bash");
        ASSERT_EQ(m.cols, 0);
        ASSERT_OK(parse("{\"type\":\"start\",\"cmd\":\"/bin/sh\",\"args\":[\"-l\"],\"cols\":100,\"rows\":30,"
                        "\"envs\":{\"A\":\"b\"},\"cwd\":\"/tmp\",\"user\":\"me\"}",
                        &full));
        ASSERT_STREQ(full.spec.args[0], "-l");
        ASSERT_STREQ(full.spec.envs[0], "A=b");
        ASSERT_STREQ(full.spec.cwd, "/tmp");
        ASSERT_STREQ(full.spec.user, "me");
        ASSERT_EQ(full.cols * 1000 + full.rows, 100030);
}

TEST(input_is_decoded) {
        _cleanup_(pty_message_done) PtyMessage m = {};

        ASSERT_OK(parse("{\"type\":\"input\",\"data\":\"AP8K\"}", &m));
        ASSERT_EQ(m.n_data, 3);
        ASSERT_EQ(memcmp(m.data, "\0\xff\n", 3), 0);
}

TEST(start_of_a_command) {
        static const char *const bad[] = {
                "",
                "{",
                "{\"type\":\"start\"}",
                "{\"cmd\":\"x\"}",
                "{\"type\":\"stop\",\"cmd\":\"x\"}",
                "{\"type\":\"start\",\"cmd\":1}",
        };
        static const char good[] = "{\"type\":\"start\",\"cmd\":\"x\",\"timeout_sec\":3}";
        _cleanup_(exec_spec_done) ExecSpec s = {};

        ASSERT_OK(exec_start_from_json(good, strlen(good), &s, NULL));
        ASSERT_STREQ(s.cmd, "x");
        ASSERT_EQ(s.timeout_usec, 3 * USEC_PER_SEC);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                _cleanup_(exec_spec_done) ExecSpec t = {};

                ASSERT_EQ(exec_start_from_json(bad[i], strlen(bad[i]), &t, &fault), -EINVAL);
                ASSERT_FAULT(fault, FAULT_INVALID_ARGS,
                             "first message must be type 'start' with a 'cmd' field");
        }
        ASSERT_TRUE(exec_message_is_stop("{\"type\":\"stop\"}", 15));
        ASSERT_FALSE(exec_message_is_stop("{\"type\":\"stop\"", 14));
}
