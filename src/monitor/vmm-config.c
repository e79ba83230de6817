/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>

#include "basic/strings.h"
#include "monitor/vmm.h"

static void disks_free(VmmDisk *disks, size_t n) {
        for (size_t i = 0; i < n; i++)
                free(disks[i].path);
        free(disks);
}

void vmm_config_done(VmmConfig *c) {
        free(c->backend);
        free(c->accelerator);
        free(c->vmm);
        free(c->kernel);
        free(c->initrd);
        free(c->mac);
        disks_free(c->disks, c->n_disks);
        if (c->identity)
                json_decref(c->identity);
        *c = (VmmConfig) {};
}

void vmm_end_done(VmmEnd *e) {
        free(e->message);
        *e = (VmmEnd) {};
}

/*
 * QEMU's option syntax ends a value at a comma. Our own paths have none; a path that could be taken for
 * something else is refused rather than quoted.
 */
static bool path_is_valid(const char *s) {
        return *s == '/' && !strchr(s, ',') && utf8_is_valid(s, strlen(s));
}

static bool accelerator_is_valid(const char *s) {
        return streq(s, "tcg") || streq(s, "kvm");
}

static bool backend_is_valid(const char *s) {
        return vmm_ops_find(s);
}

static bool mac_is_valid(const char *s) {
        if (strlen(s) != 17)
                return false;
        for (size_t i = 0; i < 17; i++)
                if (i % 3 == 2 ? s[i] != ':' : !strchr("0123456789abcdef", s[i]))
                        return false;
        return true;
}

static int parse_disks(const JsonField *f, json_t *value, void *field, Fault *reterr) {
        static const JsonField disk_fields[] = {
                { "path", json_parse_string, offsetof(VmmDisk, path), JSON_FIELD_MANDATORY,
                  .max = VMM_PATH_LEN_MAX, .valid = path_is_valid, .expected = "an absolute path" },
                { "read_only", json_parse_bool, offsetof(VmmDisk, read_only) },
                {},
        };
        VmmConfig *c = field; /* the row's offset is 0 */
        VmmDisk *disks;
        size_t n, i;
        json_t *item;

        if (!json_is_array(value) || json_array_size(value) > VMM_DISKS_MAX)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected an array of at most %u disks.",
                                 f->name, VMM_DISKS_MAX);

        n = json_array_size(value);
        disks = calloc(n > 0 ? n : 1, sizeof(VmmDisk));
        if (!disks)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        json_array_foreach(value, i, item) {
                int r = json_is_object(item) ? json_dispatch(item, disk_fields, disks + i, reterr)
                                             : fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected objects.",
                                                         f->name);

                if (r < 0) {
                        disks_free(disks, n);
                        return r;
                }
        }
        disks_free(c->disks, c->n_disks);
        c->disks = disks;
        c->n_disks = n;
        return 0;
}

static const JsonField config_fields[] = {
        { "backend", json_parse_string, offsetof(VmmConfig, backend), JSON_FIELD_MANDATORY,
          .max = NAME_MAX_LEN, .valid = backend_is_valid, .expected = "\"qemu\"" },
        { "accelerator", json_parse_string, offsetof(VmmConfig, accelerator), JSON_FIELD_MANDATORY,
          .max = NAME_MAX_LEN, .valid = accelerator_is_valid, .expected = "\"tcg\" or \"kvm\"" },
        { "vcpus", json_parse_u32, offsetof(VmmConfig, vcpus), JSON_FIELD_MANDATORY, .min = VCPUS_MIN,
          .max = VCPUS_MAX },
        { "memory_bytes", json_parse_u64, offsetof(VmmConfig, memory_bytes), JSON_FIELD_MANDATORY,
          .min = MEMORY_BYTES_MIN, .max = MEMORY_BYTES_MAX },
        { "vmm", json_parse_string, offsetof(VmmConfig, vmm), JSON_FIELD_MANDATORY, .max = VMM_PATH_LEN_MAX,
          .valid = path_is_valid, .expected = "an absolute path" },
        { "kernel", json_parse_string, offsetof(VmmConfig, kernel), JSON_FIELD_MANDATORY,
          .max = VMM_PATH_LEN_MAX, .valid = path_is_valid, .expected = "an absolute path" },
        { "initrd", json_parse_string, offsetof(VmmConfig, initrd), JSON_FIELD_MANDATORY,
          .max = VMM_PATH_LEN_MAX, .valid = path_is_valid, .expected = "an absolute path" },
        { "disks", parse_disks, 0 },
        { "mac", json_parse_string, offsetof(VmmConfig, mac), .max = 17, .valid = mac_is_valid,
          .expected = "a hardware address like \"" GUEST_MAC "\"" },
        { "tsc_khz", json_parse_u64, offsetof(VmmConfig, tsc_khz), .max = 100000000 },
        { "identity", json_parse_object, offsetof(VmmConfig, identity) },
        {},
};

int vmm_config_parse(json_t *config, VmmConfig *ret, Fault *reterr) {
        _cleanup_(vmm_config_done) VmmConfig c = {};
        int r;

        if (!json_is_object(config))
                return fault_set(reterr, FAULT_INVALID_ARGS, "config: expected an object.");
        r = json_dispatch(config, config_fields, &c, reterr);
        if (r < 0)
                return r;

        *ret = c;
        c = (VmmConfig) {};
        return 0;
}
