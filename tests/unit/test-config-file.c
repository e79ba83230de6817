/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/strings.h"
#include "daemon/core/config-file.h"
#include "test.h"

TEST(defaults) {
        _cleanup_(config_done) Config c = {};

        ASSERT_EQ(config_init(&c), 0);
        ASSERT_EQ(c.backend, BACKEND_AUTO);
        ASSERT_FALSE(c.allow_emulation);
        ASSERT_EQ(c.capsules_max, 1000);
        ASSERT_TRUE(c.memory_budget_bytes > 0);
        ASSERT_EQ(c.default_vcpus, 1);
        ASSERT_EQ(c.default_memory_bytes, 512 * MIB);
        ASSERT_TRUE(streq(c.default_template, "minimal"));
        ASSERT_EQ(c.uid_first, 1900000000);
        ASSERT_EQ(c.uid_last, 1900065535);
}

TEST(names) {
        for (Backend b = 0; b < _BACKEND_MAX; b++)
                ASSERT_EQ(backend_from_string(backend_to_string(b)), b);
        for (Accelerator a = 0; a < _ACCELERATOR_MAX; a++)
                ASSERT_EQ(accelerator_from_string(accelerator_to_string(a)), a);
        for (PtyFraming f = 0; f < _PTY_FRAMING_MAX; f++)
                ASSERT_EQ(pty_framing_from_string(pty_framing_to_string(f)), f);
        ASSERT_STREQ(pty_framing_to_string(_PTY_FRAMING_INVALID), "");
        ASSERT_EQ(pty_framing_from_string(""), _PTY_FRAMING_INVALID);
        ASSERT_EQ(backend_from_string("xen"), _BACKEND_INVALID);
        ASSERT_EQ(accelerator_from_string(""), _ACCELERATOR_INVALID);
}

TEST(keys) {
        char text[] = "# comment\n"
                      "[Daemon]\n"
                      "Backend = qemu\n"
                      "AllowEmulation=yes\r\n"
                      "MaxCapsules=7\n"
                      "MemoryBudget=3G\n"
                      "; comment\n"
                      "[Capsule]\n"
                      "DefaultTemplate=standard\n"
                      "DefaultVCPUs=2\n"
                      "DefaultMemory=1G\n"
                      "MaxExecSec=5min\n"
                      "CPUWeight=\n"
                      "UIDRange=2000-3000\n"
                      "[Network]\n"
                      "AddressPool4=10.99.0.0/16\n"
                      "[API]\n"
                      "PtyFraming=json";
        _cleanup_(config_done) Config c = {};

        ASSERT_EQ(config_init(&c), 0);
        ASSERT_EQ(config_parse(&c, "test", text), 0);
        ASSERT_EQ(c.backend, BACKEND_QEMU);
        ASSERT_TRUE(c.allow_emulation);
        ASSERT_EQ(c.capsules_max, 7);
        ASSERT_EQ(c.memory_budget_bytes, 3 * GIB);
        ASSERT_TRUE(streq(c.default_template, "standard"));
        ASSERT_EQ(c.default_vcpus, 2);
        ASSERT_EQ(c.default_memory_bytes, GIB);
        ASSERT_EQ(c.exec_max_usec, 300 * USEC_PER_SEC);
        ASSERT_EQ(c.uid_first, 2000);
        ASSERT_EQ(c.uid_last, 3000);
        ASSERT_TRUE(streq(c.address_pool4, "10.99.0.0/16"));
        ASSERT_EQ(c.pty_framing, PTY_FRAMING_JSON);
}

TEST(bad_lines_change_nothing) {
        static const char *const lines[] = {
                "[Daemon]\nUnknown=1",
                "[Nowhere]\nBackend=qemu",
                "Backend=qemu",
                "[Daemon]\nBackend=xen",
                "[Daemon]\nAllowEmulation=2x",
                "[Daemon]\nMaxCapsules=-1",
                "[Daemon]\nMaxCapsules=99999999",
                "[Capsule]\nDefaultVCPUs=0",
                "[Capsule]\nDefaultVCPUs=33",
                "[Capsule]\nDefaultMemory=1K",
                "[Capsule]\nDefaultTemplate=/",
                "[Capsule]\nUIDRange=0-100",
                "[Capsule]\nUIDRange=5000-4000",
                "[Capsule]\nUIDRange=5000",
                "[Daemon]\nno equals sign",
        };

        for (size_t i = 0; i < ELEMENTSOF(lines); i++) {
                _cleanup_(config_done) Config c = {}, untouched = {};
                _cleanup_free_ char *text = strdup(lines[i]);

                ASSERT_EQ(config_init(&c), 0);
                ASSERT_EQ(config_init(&untouched), 0);
                if (config_parse(&c, "test", text) != 1)
                        fail_msg("'%s' was taken", lines[i]);
                ASSERT_EQ(c.capsules_max, untouched.capsules_max);
                ASSERT_EQ(c.default_vcpus, untouched.default_vcpus);
                ASSERT_EQ(c.uid_first, untouched.uid_first);
                ASSERT_EQ(c.backend, untouched.backend);
        }
}

static void put(const char *dir, const char *name, const char *text, mode_t mode) {
        _cleanup_free_ char *path = strjoin(dir, "/", name);
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        ASSERT_TRUE(fd >= 0);
        ASSERT_EQ(write_all(fd, text, strlen(text)), 0);
        ASSERT_EQ(fchmod(fd, mode), 0);
}

TEST(files) {
        char base[] = "/tmp/test-config-XXXXXX";
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(config_done) Config c = {};
        _cleanup_free_ char *low = NULL, *high = NULL, *low_d = NULL, *high_d = NULL;

        ASSERT_NOT_NULL(mkdtemp(base));
        low = strjoin(base, "/low");
        high = strjoin(base, "/high");
        low_d = strjoin(low, "/wrennd.conf.d");
        high_d = strjoin(high, "/wrennd.conf.d");
        ASSERT_EQ(mkdir_parents(low_d, 0755), 0);
        ASSERT_EQ(mkdir_parents(high_d, 0755), 0);

        put(low, "wrennd.conf", "[Daemon]\nMaxCapsules=1\n", 0644);
        put(high, "wrennd.conf", "[Capsule]\nDefaultVCPUs=3\n", 0644);
        put(low_d, "50-a.conf", "[Capsule]\nTasksMax=50\n", 0644);
        put(high_d, "50-a.conf", "[Capsule]\nTasksMax=51\n", 0644);
        put(low_d, "60-b.conf", "[Capsule]\nTasksMax=60\n", 0644);
        put(low_d, "70-c.conf.off", "[Capsule]\nTasksMax=70\n", 0644);

        ASSERT_EQ(config_load((const char *const[]) { low, high, NULL }, &c, &fault), 0);
        ASSERT_EQ(c.capsules_max, 1000); /* the higher main file replaces the lower one */
        ASSERT_EQ(c.default_vcpus, 3);
        ASSERT_EQ(c.tasks_max, 60); /* drop-ins by name */
        config_done(&c);

        put(low_d, "60-b.conf", "[Capsule]\nTasksMax=60\n", 0666);
        ASSERT_EQ(config_load((const char *const[]) { low, high, NULL }, &c, &fault), -EPERM);
        ASSERT_NOT_NULL(strstr(fault.message, "60-b.conf"));

        ASSERT_EQ(remove_tree_at(AT_FDCWD, base), 0);
}
