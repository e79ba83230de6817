/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/users.h"
#include "tests/unit/test.h"

static const char passwd[] = "root:x:0:0:root:/root:/bin/bash\n"
                             "# a comment\n"
                             "\n"
                             "broken:x:notanumber:0::/:/bin/sh\n"
                             "short:x:5\n"
                             ":x:6:6::/:/bin/sh\n"
                             "negative:x:4294967295:0::/:/bin/sh\n"
                             "user:x:1000:1001:Name, with: colons are more fields:/home/user:/bin/bash\n"
                             "plain:x:1002:1002::/home/plain:/bin/sh\n"
                             "nohome:x:1003:1003:::/bin/sh\n"
                             "1002:x:1004:1004::/home/number:/bin/sh\n"
                             "last:x:1005:1005::/home/last";

TEST(passwd) {
        static const struct {
                const char *name;
                int r;
                uid_t uid;
                const char *home, *shell;
        } cases[] = {
                { "root", 0, 0, "/root", "/bin/bash" },
                { "plain", 0, 1002, "/home/plain", "/bin/sh" },
                { "1003", 0, 1003, "/", "/bin/sh" },
                { "1002", 0, 1004, "/home/number", "/bin/sh" }, /* a name before a number */
                { "last", 0, 1005, "/home/last", "/bin/sh" },   /* neither shell nor newline */
                { "nohome", 0, 1003, "/", "/bin/sh" },
                { "broken", -ENOENT, 0, NULL, NULL },
                { "short", -ENOENT, 0, NULL, NULL },
                { "", -ENOENT, 0, NULL, NULL },
                { "negative", -ENOENT, 0, NULL, NULL },
                { "4294967295", -ENOENT, 0, NULL, NULL },
                { "nobody", -ENOENT, 0, NULL, NULL },
                { "roo", -ENOENT, 0, NULL, NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(user_done) User u = USER_NULL;

                ASSERT_EQ(user_parse_passwd(passwd, cases[i].name, &u), cases[i].r);
                if (cases[i].r < 0)
                        continue;
                ASSERT_EQ(u.uid, cases[i].uid);
                ASSERT_STREQ(u.home, cases[i].home);
                ASSERT_STREQ(u.shell, cases[i].shell);
                ASSERT_EQ(u.n_groups, 1);
                ASSERT_EQ(u.groups[0], u.gid);
        }
}

TEST(group) {
        static const char text[] =
                        "root:x:0:\nplain:x:1002:plain\naudio:x:29:other,plain\nvideo:x:44:plain,other\n"
                        "near:x:50:plainer\nbroken:x:z:plain\nbad:x:4294967295:plain\nlast:x:60:plain";
        _cleanup_(user_done) User u = USER_NULL;

        ASSERT_OK(user_parse_passwd(passwd, "plain", &u));
        user_parse_group(text, &u);
        ASSERT_EQ(u.n_groups, 4); /* its own is not told twice */
        ASSERT_EQ(u.groups[0], 1002);
        ASSERT_EQ(u.groups[1], 29);
        ASSERT_EQ(u.groups[2], 44);
        ASSERT_EQ(u.groups[3], 60);
}

TEST(groups_are_bounded) {
        _cleanup_(user_done) User u = USER_NULL;
        char text[32 * (USER_GROUPS_MAX + 50)];
        size_t n = 0;

        for (unsigned i = 0; i < USER_GROUPS_MAX + 50; i++)
                n += (size_t) snprintf(text + n, sizeof(text) - n, "g%u:x:%u:plain\n", i, 5000 + i);
        ASSERT_OK(user_parse_passwd(passwd, "plain", &u));
        user_parse_group(text, &u);
        ASSERT_EQ(u.n_groups, USER_GROUPS_MAX);
}

TEST(root_needs_no_files) {
        _cleanup_(user_cache_done) UserCache cache = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        const User *u, *again;

        ASSERT_OK(user_find(&cache, "root", &u, &fault));
        ASSERT_EQ(u->uid, 0);
        ASSERT_OK(user_find(&cache, "root", &again, &fault));
        ASSERT_PTR(u, again);
        ASSERT_EQ(user_find(&cache, "no such user", &u, &fault), -EINVAL);
        ASSERT_FAULT(fault, FAULT_INVALID_ARGS, "No user 'no such user' in this capsule.");
}

TEST(names_by_number) {
        _cleanup_(user_names_freep) UserNames *names = user_names_new();

        ASSERT_NOT_NULL(names);
        ASSERT_STREQ(user_names_user(names, 0), "root");
        ASSERT_STREQ(user_names_group(names, 0), "root");
        ASSERT_STREQ(user_names_user(names, 4000000000U), "4000000000");
        ASSERT_OK(user_names_parse(names, /* groups= */ false,
                                   "b:x:77777\na:x:77777\nbad:x:z\n:x:77778\nshort\nlow:x:77000:1"));
        ASSERT_OK(user_names_parse(names, /* groups= */ true, "g:x:77777:b\n"));
        ASSERT_STREQ(user_names_user(names, 77777), "b"); /* the first counts */
        ASSERT_STREQ(user_names_user(names, 77000), "low");
        ASSERT_STREQ(user_names_user(names, 77778), "77778");
        ASSERT_STREQ(user_names_group(names, 77777), "g");
        ASSERT_STREQ(user_names_group(names, 77000), "77000");
}
