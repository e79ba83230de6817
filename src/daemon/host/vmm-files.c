/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The jail has no linker cache, no /proc and no other directory than those of the files bound into it, so a
 * library is looked for here exactly where the ELF interpreter will find it there: the absolute directories
 * of DT_RUNPATH, then the default ones. What only /etc/ld.so.conf knows counts as missing.
 */

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/strings.h"
#include "daemon/host/vmm-files.h"

#define PROGRAM_FILES_MAX 400U /* below the launcher's limit on binds */

#if defined(__x86_64__)
#define MULTIARCH   "x86_64-linux-gnu"
#define ELF_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define MULTIARCH   "aarch64-linux-gnu"
#define ELF_MACHINE EM_AARCH64
#else
#error "no library directories known for this architecture"
#endif

static const char *const library_dirs[] = {
        "/lib/" MULTIARCH, "/usr/lib/" MULTIARCH, "/lib64", "/usr/lib64", "/lib", "/usr/lib",
};

/* A mapped ELF file; all offsets are checked against its size before they are used. */
typedef struct Elf {
        uint8_t *data;
        size_t size;
        const Elf64_Phdr *phdrs;
        size_t n_phdrs;
        const Elf64_Dyn *dynamic;
        size_t n_dynamic;
        const char *strings;
        size_t n_strings;
} Elf;

static void elf_done(Elf *e) {
        if (e->data)
                (void) munmap(e->data, e->size);
        *e = (Elf) {};
}

static bool elf_in_file(const Elf *e, uint64_t offset, uint64_t size) {
        return offset <= e->size && size <= e->size - offset;
}

/* File offset of a virtual address that n bytes follow; UINT64_MAX when it is in no segment. */
static uint64_t elf_offset(const Elf *e, uint64_t address, uint64_t *ret_n) {
        for (size_t i = 0; i < e->n_phdrs; i++) {
                const Elf64_Phdr *p = e->phdrs + i;

                if (p->p_type == PT_LOAD && address >= p->p_vaddr && address - p->p_vaddr < p->p_filesz &&
                    elf_in_file(e, p->p_offset, p->p_filesz)) {
                        *ret_n = p->p_filesz - (address - p->p_vaddr);
                        return p->p_offset + (address - p->p_vaddr);
                }
        }
        return UINT64_MAX;
}

static int elf_find_dynamic(Elf *e) {
        for (size_t i = 0; i < e->n_phdrs; i++) {
                const Elf64_Phdr *p = e->phdrs + i;

                if (p->p_type != PT_DYNAMIC)
                        continue;
                if (!elf_in_file(e, p->p_offset, p->p_filesz) || p->p_offset % sizeof(uint64_t) != 0)
                        return -ENOEXEC;
                e->dynamic = (const Elf64_Dyn *) (e->data + p->p_offset);
                e->n_dynamic = p->p_filesz / sizeof(Elf64_Dyn);
        }
        for (size_t i = 0; i < e->n_dynamic && e->dynamic[i].d_tag != DT_NULL; i++)
                if (e->dynamic[i].d_tag == DT_STRTAB) {
                        uint64_t n, offset = elf_offset(e, e->dynamic[i].d_un.d_ptr, &n);

                        if (offset == UINT64_MAX)
                                return -ENOEXEC;
                        e->strings = (const char *) e->data + offset;
                        e->n_strings = n;
                }
        return 0;
}

static int elf_map(const char *path, Elf *ret) {
        _cleanup_close_ int fd = -EBADF;
        _cleanup_(elf_done) Elf e = {};
        const Elf64_Ehdr *h;
        struct stat st;
        void *data;
        int r;

        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_size < (off_t) sizeof(Elf64_Ehdr))
                return -ENOEXEC;

        data = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
                return -errno;
        e.data = data;
        e.size = (size_t) st.st_size;

        h = (const Elf64_Ehdr *) e.data;
        if (memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 || h->e_ident[EI_CLASS] != ELFCLASS64 ||
            h->e_machine != ELF_MACHINE || h->e_phentsize != sizeof(Elf64_Phdr) ||
            h->e_phoff % sizeof(uint64_t) != 0 ||
            !elf_in_file(&e, h->e_phoff, (uint64_t) h->e_phnum * sizeof(Elf64_Phdr)))
                return -ENOEXEC;
        e.phdrs = (const Elf64_Phdr *) (e.data + h->e_phoff);
        e.n_phdrs = h->e_phnum;

        r = elf_find_dynamic(&e);
        if (r < 0)
                return r;

        *ret = e;
        e = (Elf) {};
        return 0;
}

/* A string of the dynamic string table; NULL when it does not end within it. */
static const char* elf_string(const Elf *e, uint64_t offset) {
        if (!e->strings || offset >= e->n_strings || !memchr(e->strings + offset, 0, e->n_strings - offset))
                return NULL;
        return e->strings + offset;
}

static const char* elf_interpreter(const Elf *e) {
        for (size_t i = 0; i < e->n_phdrs; i++) {
                const Elf64_Phdr *p = e->phdrs + i;

                if (p->p_type == PT_INTERP && p->p_filesz > 0 && elf_in_file(e, p->p_offset, p->p_filesz) &&
                    e->data[p->p_offset + p->p_filesz - 1] == 0)
                        return (const char *) e->data + p->p_offset;
        }
        return NULL;
}

/* 1 when the file was appended, 0 when it stood there already. */
static int add_path(char ***paths, const char *path) {
        int r;

        if (strv_contains(*paths, path))
                return 0;
        if (strv_length(*paths) >= PROGRAM_FILES_MAX)
                return -E2BIG;
        r = strv_extend(paths, path);
        return r < 0 ? r : 1;
}

/* Appends dir/name if that exists: 1 (also when it stood there already), 0 when there is no such file. */
static int try_directory(char ***paths, const char *dir, const char *name) {
        _cleanup_free_ char *path = NULL;
        int r;

        path = strjoin(dir, "/", name);
        if (!path)
                return -ENOMEM;
        if (access(path, F_OK) < 0)
                return 0;
        r = add_path(paths, path);
        return r < 0 ? r : 1;
}

static int find_in_runpath(const Elf *e, const char *name, char ***paths) {
        for (size_t i = 0; i < e->n_dynamic && e->dynamic[i].d_tag != DT_NULL; i++) {
                _cleanup_strv_ char **dirs = NULL;
                const char *s;

                if (e->dynamic[i].d_tag != DT_RUNPATH && e->dynamic[i].d_tag != DT_RPATH)
                        continue;
                s = elf_string(e, e->dynamic[i].d_un.d_val);
                dirs = s ? strv_split(s, ":") : NULL;
                STRV_FOREACH(d, dirs) {
                        int r = **d == '/' ? try_directory(paths, *d, name) : 0; /* $ORIGIN needs /proc */

                        if (r != 0)
                                return r;
                }
        }
        return 0;
}

static int find_library(const Elf *e, const char *name, char ***paths) {
        int r;

        if (strchr(name, '/'))
                return *name == '/' && access(name, F_OK) >= 0 ? add_path(paths, name) : -ENOENT;

        r = find_in_runpath(e, name, paths);
        for (size_t i = 0; r == 0 && i < ELEMENTSOF(library_dirs); i++)
                r = try_directory(paths, library_dirs[i], name);
        return r == 0 ? -ENOENT : r;
}

/* Appends the interpreter and the libraries one file names. */
static int add_needs(const char *path, char ***paths, Fault *reterr) {
        _cleanup_(elf_done) Elf e = {};
        const char *s;
        int r;

        r = elf_map(path, &e);
        if (r < 0)
                return fault_set_errno(reterr, r, "Cannot read the program '%s'", path);

        s = elf_interpreter(&e);
        if (s) {
                r = add_path(paths, s);
                if (r < 0)
                        return fault_set_errno(reterr, r, "Cannot list '%s'", s);
        }

        for (size_t i = 0; i < e.n_dynamic && e.dynamic[i].d_tag != DT_NULL; i++) {
                if (e.dynamic[i].d_tag != DT_NEEDED)
                        continue;
                s = elf_string(&e, e.dynamic[i].d_un.d_val);
                if (!s)
                        return fault_set_errno(reterr, -ENOEXEC, "Cannot read the program '%s'", path);
                r = find_library(&e, s, paths);
                if (r == -ENOENT) {
                        (void) fault_set(reterr, FAULT_BACKEND_UNAVAILABLE,
                                         "Cannot find library '%s', which '%s' needs.", s, path);
                        return -ENOENT;
                }
                if (r < 0)
                        return fault_set_errno(reterr, r, "Cannot list library '%s'", s);
        }
        return 0;
}

int program_files(const char *program, char ***paths, Fault *reterr) {
        size_t done = strv_length(*paths);
        int r;

        assert(program);

        if (access(program, F_OK) < 0) {
                (void) fault_set(reterr, FAULT_BACKEND_UNAVAILABLE, "There is no program '%s'.", program);
                return -ENOENT;
        }
        r = add_path(paths, program);
        if (r < 0)
                return fault_set_errno(reterr, r, "Cannot list '%s'", program);

        /* the list is the queue: each file appends what it needs behind itself */
        for (; *paths && (*paths)[done]; done++) {
                r = add_needs((*paths)[done], paths, reterr);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Appends the first of dirs/name that exists, and with it its libraries when it is a module. */
static int add_optional(const char *const *dirs, size_t n_dirs, const char *name, bool module, char ***paths,
                        Fault *reterr) {
        for (size_t i = 0; i < n_dirs; i++) {
                _cleanup_free_ char *path = strjoin(dirs[i], "/", name);
                int r;

                if (!path)
                        return fault_set_errno(reterr, -ENOMEM, "Cannot list '%s'", name);
                if (access(path, F_OK) < 0)
                        continue;
                if (module)
                        return program_files(path, paths, reterr);
                r = add_path(paths, path);
                return r < 0 ? fault_set_errno(reterr, r, "Cannot list '%s'", path) : 0;
        }
        return 0;
}

int vmm_files_qemu(const char *program, const char *accelerator, char ***paths, Fault *reterr) {
        static const char *const module_dirs[] = { "/usr/lib/" MULTIARCH "/qemu", "/usr/lib64/qemu",
                                                   "/usr/lib/qemu" };
        static const char *const firmware_dirs[] = { "/usr/share/qemu", "/usr/share/seabios",
                                                     "/usr/share/qemu-firmware" };
        static const char *const firmware[] = { "bios-microvm.bin", "linuxboot_dma.bin", "pvh.bin" };
        _cleanup_free_ char *module = NULL;
        const char *base, *target;
        int r;

        assert(program && accelerator);

        r = program_files(program, paths, reterr);
        if (r < 0)
                return r;

        /* distributions build the accelerators as modules or into the program */
        base = strrchr(program, '/');
        target = startswith(base ? base + 1 : program, "qemu-system-");
        module = strjoin("accel-", accelerator, "-", strempty(target), ".so");
        if (!module)
                return fault_set_errno(reterr, -ENOMEM, "Cannot list the modules of '%s'", program);
        r = add_optional(module_dirs, ELEMENTSOF(module_dirs), module, /* module= */ true, paths, reterr);

        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(firmware); i++)
                r = add_optional(firmware_dirs, ELEMENTSOF(firmware_dirs), firmware[i], /* module= */ false,
                                 paths, reterr);
        return r;
}

int vmm_files_to_args(char *const *paths, char ***argv) {
        STRV_FOREACH(p, paths) {
                int r = strv_extendf(argv, "--bind-ro=%s:%s", *p, *p);

                if (r < 0)
                        return r;
        }
        return 0;
}

char* vmm_files_stamp(char *const *paths) {
        uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a over what identifies each file's content */

        STRV_FOREACH(p, paths) {
                struct stat st = {};
                uint64_t v[5];

                (void) stat(*p, &st);
                v[0] = st.st_dev;
                v[1] = st.st_ino;
                v[2] = (uint64_t) st.st_size;
                v[3] = (uint64_t) st.st_mtim.tv_sec;
                v[4] = (uint64_t) st.st_mtim.tv_nsec ^ (uint64_t) st.st_ctim.tv_nsec;
                for (size_t i = 0; i < sizeof(v); i++)
                        hash = (hash ^ ((const uint8_t *) v)[i]) * UINT64_C(1099511628211);
        }
        return asprintf_null("%zu-%016llx", strv_length(paths), (unsigned long long) hash);
}
