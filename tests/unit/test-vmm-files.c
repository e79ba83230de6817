/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>

#include "basic/strings.h"
#include "daemon/host/vmm-files.h"
#include "tests/unit/test.h"

static bool has_suffix(char *const *paths, const char *suffix) {
        STRV_FOREACH(p, paths)
                if (endswith(*p, suffix))
                        return true;
        return false;
}

TEST(own_libraries) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_strv_ char **paths = NULL;
        char self[4096];
        size_t n;
        ssize_t k;

        k = readlink("/proc/self/exe", self, sizeof(self) - 1);
        ASSERT_OK(k);
        self[k] = 0;
        ASSERT_OK(program_files(self, &paths, &fault));
        ASSERT_STREQ(paths[0], self);
        ASSERT_TRUE(has_suffix(paths, "/libc.so.6"));
        ASSERT_TRUE(has_suffix(paths, "/libcmocka.so.0"));
        STRV_FOREACH(p, paths) {
                ASSERT_EQ(**p, '/');
                ASSERT_OK(access(*p, R_OK));
        }

        n = strv_length(paths);
        ASSERT_OK(program_files(self, &paths, &fault));
        ASSERT_EQ(strv_length(paths), n);
}

TEST(refusals) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_strv_ char **paths = NULL;
        char name[] = "/tmp/monitor-test-XXXXXX";
        int fd;

        ASSERT_EQ(program_files("/no/such/program", &paths, &fault), -ENOENT);
        ASSERT_FAULT(fault, FAULT_BACKEND_UNAVAILABLE, "There is no program '/no/such/program'.");
        fault_done(&fault);
        ASSERT_EQ(program_files("/etc/passwd", &paths, &fault), -ENOEXEC);
        fault_done(&fault);
        ASSERT_EQ(program_files("/dev/null", &paths, &fault), -ENOEXEC);
        fault_done(&fault);

        /* cut short behind its header: tables point beyond the end */
        fd = mkostemp(name, O_CLOEXEC);
        ASSERT_OK(fd);
        {
                int source = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
                char head[64];

                ASSERT_EQ(read(source, head, sizeof(head)), 64);
                ASSERT_EQ(write(fd, head, sizeof(head)), 64);
                close(source);
        }
        ASSERT_EQ(program_files(name, &paths, &fault), -ENOEXEC);
        close(fd);
        unlink(name);
}

TEST(qemu) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_strv_ char **paths = NULL, **args = NULL;
        _cleanup_free_ char *stamp = NULL, *again = NULL;

        if (access("/usr/bin/qemu-system-x86_64", X_OK) < 0)
                skip();
        ASSERT_OK(vmm_files_qemu("/usr/bin/qemu-system-x86_64", "tcg", &paths, &fault));
        ASSERT_TRUE(has_suffix(paths, "/bios-microvm.bin"));
        ASSERT_TRUE(has_suffix(paths, "/accel-tcg-x86_64.so"));
        ASSERT_OK(vmm_files_to_args(paths, &args));
        ASSERT_EQ(strv_length(args), strv_length(paths));
        ASSERT_STREQ(args[0], "--bind-ro=/usr/bin/qemu-system-x86_64:/usr/bin/qemu-system-x86_64");

        stamp = vmm_files_stamp(paths);
        again = vmm_files_stamp(paths);
        ASSERT_STREQ(stamp, again);
        free(again);
        paths[1][1] = '#'; /* a file that is gone */
        again = vmm_files_stamp(paths);
        ASSERT_FALSE(streq(stamp, again));
}
