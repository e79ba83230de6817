/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <elf.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/strings.h"
#include "worker/kernel-modules.h"
#include "worker/run.h"

#define MODULE_BYTES_MAX  (32 * MIB)
#define MODULES_MAX       256U /* in one initrd */
#define MODULE_DEPTH_MAX  16U  /* of dependencies */
#define BUILTIN_BYTES_MAX (1 * MIB)

static const char signature_mark[] = "~Module signature appended~\n";

typedef struct Modules {
        const char *directory, *scratch;
        char **paths;  /* all files of the tree */
        char *builtin; /* text of modules.builtin */
        char **order;  /* names taken, dependencies first */
        Cpio *cpio;
} Modules;

static void modules_done(Modules *m) {
        strv_free(m->paths);
        free(m->builtin);
        strv_free(m->order);
}

/* ELF */

static bool range_is_inside(uint64_t offset, uint64_t length, size_t n) {
        return offset <= n && length <= n - offset;
}

static int section_at(const uint8_t *data, size_t n, const Elf64_Ehdr *h, size_t i, Elf64_Shdr *ret) {
        uint64_t offset = h->e_shoff + (uint64_t) i * sizeof(Elf64_Shdr);

        if (h->e_shoff > n || !range_is_inside(offset, sizeof(Elf64_Shdr), n))
                return -EINVAL;

        memcpy(ret, data + offset, sizeof(Elf64_Shdr));
        if (ret->sh_type != SHT_NOBITS && !range_is_inside(ret->sh_offset, ret->sh_size, n))
                return -EINVAL;
        return 0;
}

/* The bytes of the named section. */
static int find_section(const uint8_t *data, size_t n, const char *name, const uint8_t **ret,
                        size_t *ret_n) {
        Elf64_Shdr names, section;
        Elf64_Ehdr h;

        if (n < sizeof(h))
                return -EINVAL;
        memcpy(&h, data, sizeof(h));
        if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64 ||
            h.e_shentsize != sizeof(Elf64_Shdr) || section_at(data, n, &h, h.e_shstrndx, &names) < 0 ||
            names.sh_type != SHT_STRTAB)
                return -EINVAL;

        for (size_t i = 0; i < h.e_shnum; i++) {
                size_t n_name = strlen(name) + 1;

                if (section_at(data, n, &h, i, &section) < 0)
                        return -EINVAL;
                if (section.sh_type != SHT_PROGBITS ||
                    !range_is_inside(section.sh_name, n_name, names.sh_size) ||
                    memcmp(data + names.sh_offset + section.sh_name, name, n_name) != 0)
                        continue;

                *ret = data + section.sh_offset;
                *ret_n = section.sh_size;
                return 0;
        }

        return -EINVAL;
}

int module_depends(const uint8_t *data, size_t n, const char **ret) {
        const uint8_t *info;
        size_t n_info;
        int r;

        r = find_section(data, n, ".modinfo", &info, &n_info);
        if (r < 0)
                return r;
        if (n_info == 0 || info[n_info - 1] != '\0')
                return -EINVAL;

        *ret = "";
        for (const char *p = (const char *) info, *end = p + n_info; p < end; p += strlen(p) + 1) {
                const char *value = startswith(p, "depends=");

                if (value) {
                        *ret = value;
                        break;
                }
        }

        return 0;
}

size_t module_unsigned_length(const uint8_t *data, size_t n) {
        /* struct module_signature, the last 4 bytes its length */
        const size_t n_mark = sizeof(signature_mark) - 1, n_info = 12;
        const uint8_t *p;
        size_t n_signature;

        if (n < n_mark + n_info || memcmp(data + n - n_mark, signature_mark, n_mark) != 0)
                return n;

        p = data + n - n_mark - 4;
        n_signature = (size_t) p[0] << 24 | (size_t) p[1] << 16 | (size_t) p[2] << 8 | p[3];
        return n_signature > n - n_mark - n_info ? n : n - n_mark - n_info - n_signature;
}

/* files */

/* "virtio_blk" for ".../virtio-blk.ko.xz": '-' and '_' are the same in module names. False when it is no
 * module. */
static bool module_name(const char *path, char name[static NAME_MAX + 1]) {
        const char *base = strrchr(path, '/'), *end;
        size_t n;

        base = base ? base + 1 : path;
        end = strstr(base, ".ko");
        if (!end || end == base || (end[3] && end[3] != '.'))
                return false;

        n = (size_t) (end - base);
        if (n > NAME_MAX)
                return false;
        for (size_t i = 0; i < n; i++)
                name[i] = base[i] == '-' ? '_' : base[i];
        name[n] = '\0';
        return true;
}

static const char* modules_find(char *const *paths, const char *name) {
        char have[NAME_MAX + 1];

        STRV_FOREACH(p, paths)
                if (module_name(*p, have) && streq(have, name))
                        return *p;

        return NULL;
}

static bool is_builtin(const Modules *m, const char *name) {
        _cleanup_strv_ char **lines = strv_split(strempty(m->builtin), "\n");

        return modules_find(lines, name) != NULL;
}

static int modules_scan(Modules *m, Fault *reterr) {
        _cleanup_free_ char *builtin = strjoin(m->directory, "/modules.builtin");
        char *roots[] = { (char *) m->directory, NULL };
        FTSENT *entry;
        FTS *fts;
        int r = 0;

        fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_NOSTAT, NULL);
        if (!fts || !builtin)
                return fault_set_errno(reterr, -ENOMEM, "Failed to look for kernel modules");

        while (r >= 0 && (entry = fts_read(fts)))
                if (strstr(entry->fts_name, ".ko"))
                        r = strv_extend(&m->paths, entry->fts_path);
        (void) fts_close(fts);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to look for kernel modules");

        r = read_file_at(AT_FDCWD, builtin, BUILTIN_BYTES_MAX, &m->builtin, NULL);
        if (r < 0 && r != -ENOENT)
                return fault_set_errno(reterr, r, "Failed to read '%s'", builtin);
        return 0;
}

/* The module's bytes, unpacked if need be. */
static int module_read(const Modules *m, const char *path, char **ret, size_t *ret_n, Fault *reterr) {
        static const char *const tools[][2] = { { ".xz", "xz" }, { ".zst", "zstd" }, { ".gz", "gzip" } };
        _cleanup_free_ char *plain = strjoin(m->scratch, "/module");
        _cleanup_close_ int fd = -EBADF;
        const char *tool = NULL;
        int r;

        for (size_t i = 0; i < ELEMENTSOF(tools); i++)
                if (endswith(path, tools[i][0]))
                        tool = tools[i][1];

        fd = !plain ? -ENOMEM
             : tool ? open(plain, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)
                    : open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return fault_set_errno(reterr, plain ? errno : ENOMEM, "Failed to open '%s'", path);
        if (tool) {
                r = run_tool((char *const[]) { (char *) tool, (char *) "-dc", (char *) path, NULL },
                             &(RunOptions) { .stdout_fd = fd }, reterr);
                (void) unlink(plain);
                if (r < 0)
                        return r;
                if (lseek(fd, 0, SEEK_SET) < 0)
                        return fault_set_errno(reterr, errno, "Failed to read '%s'", path);
        }

        r = read_fd(fd, MODULE_BYTES_MAX, ret, ret_n);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to read '%s'", path);
        return 0;
}

/* Adds the module after those it depends on. */
static int modules_take(Modules *m, const char *name, unsigned depth, Fault *reterr) {
        _cleanup_free_ char *data = NULL, *file = strjoin("modules/", name, ".ko");
        _cleanup_strv_ char **depends = NULL;
        const char *path, *list;
        size_t n;
        int r;

        if (strv_contains(m->order, name) || is_builtin(m, name))
                return 0;
        path = modules_find(m->paths, name);
        if (!path)
                return fault_set(reterr, FAULT_INTERNAL, "The kernel package has no module '%s'.", name);
        if (depth >= MODULE_DEPTH_MAX || strv_length(m->order) >= MODULES_MAX)
                return fault_set(reterr, FAULT_INTERNAL, "Module '%s' depends on too many others.", name);

        r = module_read(m, path, &data, &n, reterr);
        if (r < 0)
                return r;
        r = module_depends((const uint8_t *) data, n, &list);
        if (r < 0)
                return fault_set(reterr, FAULT_INTERNAL, "'%s' is no kernel module.", path);

        depends = strv_split(list, ",");
        STRV_FOREACH(d, depends) {
                char normal[NAME_MAX + 4];

                (void) snprintf(normal, sizeof(normal), "%s.ko", *d);
                if (!module_name(normal, normal))
                        continue;
                r = modules_take(m, normal, depth + 1, reterr);
                if (r < 0)
                        return r;
        }

        r = file ? cpio_add_file(m->cpio, file, 0644, data,
                                 module_unsigned_length((const uint8_t *) data, n))
                 : -ENOMEM;
        if (r >= 0)
                r = strv_extend(&m->order, name);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to archive module '%s'", name);
        return 0;
}

int modules_archive(const char *directory, const char *const *names, const char *scratch, Cpio *cpio,
                    Fault *reterr) {
        _cleanup_(modules_done) Modules m = { .directory = directory, .scratch = scratch, .cpio = cpio };
        _cleanup_free_ char *order = strdup("");
        int r;

        r = modules_scan(&m, reterr);
        if (r < 0)
                return r;
        r = cpio_add_directory(cpio, "modules", 0755);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to archive the modules");

        STRV_FOREACH(name, names) {
                r = modules_take(&m, *name, 0, reterr);
                if (r < 0)
                        return r;
        }

        STRV_FOREACH(name, m.order) {
                char *longer = strjoin(strempty(order), *name, ".ko\n");

                if (!longer)
                        return fault_set_errno(reterr, -ENOMEM, "Failed to archive the modules");
                free(order);
                order = longer;
        }

        r = order ? cpio_add_file(cpio, "modules/order", 0644, order, strlen(order)) : -ENOMEM;
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to archive the modules");
        return 0;
}
