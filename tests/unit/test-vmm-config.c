/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/strings.h"
#include "monitor/vmm.h"
#include "tests/unit/test.h"

#define HEAD                                                                                                                           \
        "\"backend\":\"qemu\",\"accelerator\":\"tcg\",\"vcpus\":1,\"memory_bytes\":268435456,\"vmm\":\"/usr/bin/qemu-system-x86_64\"," \
        "\"kernel\":\"/kernel\",\"initrd\":\"/initrd\""
#define DISKS \
        "\"disks\":[{\"path\":\"/rootfs\",\"read_only\":true},{\"path\":\"/layer\",\"read_only\":false}]"

static int parse(const char *text, VmmConfig *ret, Fault *reterr) {
        _cleanup_json_ json_t *config = json_loads(text, 0, NULL);

        ASSERT_NOT_NULL(config);
        return vmm_config_parse(config, ret, reterr);
}

static void assert_line(char *const *line, const char *expected) {
        _cleanup_free_ char *text = NULL;

        STRV_FOREACH(i, line) {
                char *longer = strjoin(strempty(text), text ? " " : "", *i);

                free(text);
                text = longer;
        }
        if (!text || !streq(text, expected))
                fail_msg("the line is '%s'", strempty(text));
}

TEST(parse) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        VmmConfig c = {};

        ASSERT_OK(parse("{" HEAD "," DISKS
                        ",\"mac\":\"06:00:00:00:00:02\",\"tsc_khz\":2445000,\"identity\":{\"id\":\"x\"}}",
                        &c, &fault));
        ASSERT_EQ(c.n_disks, 2);
        ASSERT_TRUE(c.disks[0].read_only);
        ASSERT_STREQ(c.disks[1].path, "/layer");
        ASSERT_EQ(c.tsc_khz, 2445000);
        ASSERT_STREQ(c.mac, "06:00:00:00:00:02");
        ASSERT_NOT_NULL(c.identity);
        vmm_config_done(&c);

        ASSERT_OK(parse("{" HEAD ",\"mac\":null,\"disks\":[]}", &c, &fault));
        ASSERT_NULL(c.mac);
        ASSERT_EQ(c.n_disks, 0);
        vmm_config_done(&c);
}

TEST(refusals) {
        static const struct {
                const char *text, *word;
        } cases[] = {
                { "{}", "backend" },
                { "{" HEAD ",\"disks\":{}}", "disks" },
                { "{" HEAD ",\"disks\":[1]}", "disks" },
                { "{" HEAD ",\"disks\":[{}]}", "path" },
                { "{" HEAD ",\"disks\":[{\"path\":\"relative\"}]}", "path" },
                { "{" HEAD ",\"disks\":[{\"path\":\"/a,format=qcow2\"}]}", "path" },
                { "{" HEAD
                  ",\"disks\":[{\"path\":\"/\"},{\"path\":\"/\"},{\"path\":\"/\"},{\"path\":\"/\"},{\"path\":\"/\"},{\"path\":\"/"
                  "\"},{\"path\":\"/\"},{\"path\":\"/\"},{\"path\":\"/\"}]}",
                  "disks" },
                { "{" HEAD ",\"mac\":\"06-00-00-00-00-02\"}", "mac" },
                { "{" HEAD ",\"mac\":\"06:00:00:00:00:02,x=y\"}", "mac" },
                { "{" HEAD ",\"tsc_khz\":-1}", "tsc_khz" },
                { "{" HEAD ",\"backend\":\"bhyve\"}", "backend" },
                { "{" HEAD ",\"accelerator\":\"hvf\"}", "accelerator" },
                { "{" HEAD ",\"vcpus\":33}", "vcpus" },
                { "{" HEAD ",\"memory_bytes\":1}", "memory_bytes" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                VmmConfig c = {};

                ASSERT_EQ(parse(cases[i].text, &c, &fault), -EINVAL);
                ASSERT_EQ(fault.code, FAULT_INVALID_ARGS);
                if (!strstr(fault.message, cases[i].word))
                        fail_msg("'%s' does not name '%s'", fault.message, cases[i].word);
                ASSERT_NULL(c.backend);
        }
}

TEST(qemu_line_emulated) {
        static const QemuFds fds = { .qmp = 10, .agent = 11, .console = 12, .tap = 13 };
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_strv_ char **line = NULL;
        VmmConfig c = {};

        ASSERT_OK(parse("{" HEAD "," DISKS ",\"mac\":\"06:00:00:00:00:02\",\"tsc_khz\":2445000}", &c,
                        &fault));
        line = qemu_command_line(&c, &fds);
        assert_line(line,
                    "/usr/bin/qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -L /usr/share/qemu"
                    " -machine microvm,acpi=on,x-option-roms=off,pit=off,pic=off,rtc=on,dump-guest-core=off"
                    " -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny -rtc base=utc"
                    " -accel tcg,split-wx=on,tb-size=32 -cpu qemu64,+arat,+rdrand -smp 1 -m 268435456B"
                    " -object main-loop,id=loop,thread-pool-max=4 -kernel /kernel -initrd /initrd"
                    " -append console=ttyS0 quiet loglevel=0 panic=-1 reboot=t 8250.nr_uarts=1 random.trust_cpu=on"
                    " cryptomgr.notests rcupdate.rcu_expedited=1 no_timer_check"
                    " mitigations=off nokaslr tsc=reliable tsc_early_khz=2445000"
                    " -chardev socket,id=qmp,fd=10 -chardev socket,id=console,fd=12 -chardev socket,id=agent,fd=11"
                    " -mon chardev=qmp,mode=control -serial chardev:console -device virtio-serial-device,max_ports=2"
                    " -device virtserialport,chardev=agent,nr=1,name=dev.wrenn.agent"
                    " -drive if=none,id=disk0,file=/rootfs,format=raw,aio=threads,readonly=on,file.locking=off"
                    " -device virtio-blk-device,drive=disk0,serial=base"
                    " -drive if=none,id=disk1,file=/layer,format=raw,aio=threads,discard=unmap,werror=enospc,rerror=report"
                    " -device virtio-blk-device,drive=disk1,serial=layer"
                    " -netdev tap,id=net0,fd=13 -device virtio-net-device,netdev=net0,mac=06:00:00:00:00:02");
        vmm_config_done(&c);
}

TEST(qemu_line_hardware) {
        static const QemuFds fds = { .qmp = 10, .agent = 11, .console = 12, .tap = -EBADF };
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_strv_ char **line = NULL;
        _cleanup_free_ char *kernel = NULL;
        VmmConfig c = {};

        ASSERT_OK(parse("{\"backend\":\"qemu\",\"accelerator\":\"kvm\",\"vcpus\":4,\"memory_bytes\":536870912,\"vmm\":\"/q\",\"kernel\":\"/k\","
                        "\"initrd\":\"/i\",\"tsc_khz\":2445000}",
                        &c, &fault));
        line = qemu_command_line(&c, &fds);
        ASSERT_TRUE(strv_contains(line, "kvm"));
        ASSERT_TRUE(strv_contains(line, "host"));
        ASSERT_FALSE(strv_contains(line, "-netdev"));
        ASSERT_FALSE(strv_contains(line, "-drive"));
        kernel = qemu_kernel_line(&c);
        ASSERT_NULL(strstr(kernel, "tsc_early_khz"));
        ASSERT_NULL(strstr(kernel, "mitigations"));
        vmm_config_done(&c);
}
