// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A power cut for one process, by LD_PRELOAD.
 *
 * The shim watches the files directly in one folder. Before a byte of them changes it keeps what was there, in
 * sectors of 512 bytes, until the file is synced. At the cut it makes the files look as a disk might after the power
 * went: of what was written since each file's last fsync or fdatasync, all, some or none has arrived, in any order
 * between files, pages torn at sectors, sizes anywhere between the synced and the written one; names that were made,
 * moved or removed since the folder's last fsync may be so or not. Then the process is gone (SIGKILL).
 *
 *   PLI_POWERCUT_DIR    the folder, as the process will name it
 *   PLI_POWERCUT_SEED   a number; the same seed and the same writes give the same files
 *   PLI_POWERCUT_AT     cut at the n-th write, truncation or sync of a watched file; absent: never
 *   PLI_POWERCUT_FAIL   the first sync of a watched file at or after that many of them fails with EIO; absent: none
 *
 * Opening the name ".powercut-image" in the folder writes, instead of cutting, the files as they would be after a cut
 * now to the folder's name with ".cut" appended.
 *
 * Not seen, by intent: memory maps (SQLite's -shm, which is thrown away at the cut as a restart would) and direct
 * system calls (the lock file and the reserve, which carry no data). The sync itself is not passed on: the page cache
 * outlives the process, and the cut is simulated.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR 512
#define BLOCK_SECTORS 8 /* SQLite's pages are 4 KiB */
#define FDS_MAX 4096
#define NAMES_MAX 256

struct file {
	struct file *next;
	dev_t dev;
	ino_t ino;
	char name[NAME_MAX + 1];
	off_t synced_size;
	unsigned char **old; /* per sector: what was synced, or NULL while unchanged */
	size_t sectors;
	int fresh; /* made since the folder was synced */
};

struct change { /* of a name, since the folder was synced */
	char from[NAME_MAX + 1];
	char to[NAME_MAX + 1]; /* empty: removed or replaced, kept in the shadow folder under its number */
	int number, replaced;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file *files;
static struct file *by_fd[FDS_MAX];
static char is_folder[FDS_MAX];
static struct change changes[NAMES_MAX];
static int changes_len, shadows;
static char folder[PATH_MAX];
static uint64_t random_state, operations, cut_at, fail_at;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);

static void *next_symbol(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);
	if (!found)
		abort();
	return found;
}

__attribute__((constructor)) static void begin(void)
{
	if (real_open)
		return;
	real_openat = next_symbol("openat64");
	real_close = next_symbol("close");
	real_write = next_symbol("write");
	real_pwrite = next_symbol("pwrite64");
	real_ftruncate = next_symbol("ftruncate64");
	real_fsync = next_symbol("fsync");
	real_fdatasync = next_symbol("fdatasync");
	real_unlink = next_symbol("unlink");
	real_rename = next_symbol("rename");
	const char *dir = getenv("PLI_POWERCUT_DIR");
	const char *seed = getenv("PLI_POWERCUT_SEED");
	const char *at = getenv("PLI_POWERCUT_AT");
	const char *fail = getenv("PLI_POWERCUT_FAIL");
	snprintf(folder, sizeof folder, "%s", dir ? dir : "");
	random_state = (seed ? strtoull(seed, NULL, 10) : 1) * 0x9E3779B97F4A7C15ull + 1;
	cut_at = at ? strtoull(at, NULL, 10) : 0;
	fail_at = fail ? strtoull(fail, NULL, 10) : 0;
	real_open = next_symbol("open64");
}

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t draw(uint64_t below)
{
	uint64_t z = (random_state += 0x9E3779B97F4A7C15ull);
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
	return (z ^ (z >> 31)) % below;
}

static int ends_with(const char *text, const char *end)
{
	size_t a = strlen(text), b = strlen(end);
	return a >= b && strcmp(text + a - b, end) == 0;
}

/* The name of a watched path within the folder, or NULL. */
static const char *watched(const char *path)
{
	size_t len = strlen(folder);
	if (!len || strncmp(path, folder, len) || path[len] != '/' || !path[len + 1])
		return NULL;
	const char *name = path + len + 1;
	if (strchr(name, '/') || strlen(name) > NAME_MAX || ends_with(name, "-shm") || !strcmp(name, "reserve") ||
	    !strcmp(name, "pli.lock"))
		return NULL;
	return name;
}

static void path_of(char *path, const char *base, const char *suffix, const char *name)
{
	if (snprintf(path, PATH_MAX, "%s%s/%s", base, suffix, name) >= PATH_MAX)
		abort();
}

static void keep_sector(struct file *file, int fd, size_t sector)
{
	if (sector >= file->sectors) {
		size_t more = (sector + 1) * 2;
		file->old = realloc(file->old, more * sizeof *file->old);
		if (!file->old)
			abort();
		memset(file->old + file->sectors, 0, (more - file->sectors) * sizeof *file->old);
		file->sectors = more;
	}
	if (file->old[sector])
		return;
	unsigned char *old = calloc(1, SECTOR);
	if (!old)
		abort();
	off_t at = (off_t)sector * SECTOR;
	if (at < file->synced_size) {
		char path[PATH_MAX];
		path_of(path, folder, "", file->name);
		/* The caller's descriptor may be write-only. */
		int reader = real_open(path, O_RDONLY | O_CLOEXEC);
		if (pread(reader < 0 ? fd : reader, old, SECTOR, at) < 0)
			abort();
		if (reader >= 0)
			real_close(reader);
	}
	file->old[sector] = old;
}

static void keep(struct file *file, int fd, off_t from, off_t to)
{
	for (off_t sector = from / SECTOR; sector * SECTOR < to; sector++)
		keep_sector(file, fd, sector);
}

static void synced(struct file *file, off_t size)
{
	for (size_t i = 0; i < file->sectors; i++) {
		free(file->old[i]);
		file->old[i] = NULL;
	}
	file->synced_size = size;
}

static void put_back(int fd, struct file *file, size_t sector, off_t size)
{
	off_t at = (off_t)sector * SECTOR;
	if (at < size)
		(void)!real_pwrite(fd, file->old[sector], size - at < SECTOR ? size - at : SECTOR, at);
}

static off_t size_after(off_t synced_size, off_t size, int all, int none)
{
	if (all || none || size == synced_size)
		return none ? synced_size : size;
	switch (draw(3)) {
	case 0:
		return synced_size;
	case 1:
		return size;
	default:
		return size > synced_size ? synced_size + (off_t)draw(size - synced_size) : synced_size;
	}
}

/* Makes the file at `path`, which holds everything that was written, look as after a cut. */
static void cut_file(struct file *file, const char *path)
{
	int fd = real_open(path, O_RDWR | O_CLOEXEC);
	struct stat st;
	if (fd < 0)
		return;
	if (fstat(fd, &st))
		abort();
	uint64_t fate = draw(4);
	int all = fate == 0, none = fate == 1;
	off_t size = size_after(file->synced_size, st.st_size, all, none);
	if (real_ftruncate(fd, size))
		abort();
	for (size_t block = 0; block < file->sectors && !all; block += BLOCK_SECTORS) {
		uint64_t torn = draw(3);
		for (size_t sector = block; sector < block + BLOCK_SECTORS && sector < file->sectors; sector++) {
			int lost = none || torn == 0 || (torn == 1 && draw(2));
			/* A sector that was cut off and is back can only hold what it held. */
			int revived = (off_t)sector * SECTOR >= st.st_size;
			if (file->old[sector] && (lost || revived))
				put_back(fd, file, sector, size);
		}
	}
	real_close(fd);
}

static void cut_names(const char *suffix)
{
	char from[PATH_MAX], to[PATH_MAX], name[NAME_MAX + 1];
	for (int i = changes_len - 1; i >= 0; i--) {
		path_of(from, folder, suffix, changes[i].from);
		if (draw(2) || (!changes[i].replaced && !access(from, F_OK)))
			continue;
		if (changes[i].to[0]) {
			path_of(to, folder, suffix, changes[i].to);
			real_rename(to, from);
		} else if (!*suffix) {
			snprintf(name, sizeof name, "%d", changes[i].number);
			path_of(to, folder, ".gone", name);
			real_rename(to, from);
		}
	}
}

static void cut_files(const char *suffix)
{
	char path[PATH_MAX];
	for (struct file *file = files; file; file = file->next) {
		path_of(path, folder, suffix, file->name);
		cut_file(file, path);
		if (file->fresh && draw(2))
			real_unlink(path);
	}
	cut_names(suffix);
}

static void cut(void)
{
	char path[PATH_MAX];
	cut_files("");
	DIR *dir = opendir(folder);
	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		if (ends_with(entry->d_name, "-shm")) {
			path_of(path, folder, "", entry->d_name);
			real_unlink(path);
		}
	}
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static void operation(void)
{
	if (++operations == cut_at)
		cut();
}

static void copy_file(const char *from, const char *to)
{
	char buffer[65536];
	int in = real_open(from, O_RDONLY | O_CLOEXEC);
	int out = real_open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (in < 0 || out < 0)
		abort();
	for (ssize_t n; (n = read(in, buffer, sizeof buffer)) > 0;)
		if (real_write(out, buffer, n) != n)
			abort();
	real_close(in);
	real_close(out);
}

static void image(void)
{
	char from[PATH_MAX], to[PATH_MAX];
	path_of(to, folder, ".cut", "");
	mkdir(to, 0700);
	DIR *dir = opendir(folder);
	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		path_of(from, folder, "", entry->d_name);
		if (!watched(from) || entry->d_type != DT_REG)
			continue;
		path_of(to, folder, ".cut", entry->d_name);
		copy_file(from, to);
	}
	if (dir)
		closedir(dir);
	cut_files(".cut");
}

static struct file *known(const struct stat *st, const char *name, int fresh)
{
	for (struct file *file = files; file; file = file->next)
		if (file->dev == st->st_dev && file->ino == st->st_ino) {
			snprintf(file->name, sizeof file->name, "%s", name);
			return file;
		}
	struct file *file = calloc(1, sizeof *file);
	if (!file)
		abort();
	*file = (struct file){.next = files, .dev = st->st_dev, .ino = st->st_ino, .fresh = fresh};
	snprintf(file->name, sizeof file->name, "%s", name);
	file->synced_size = st->st_size;
	return files = file;
}

static void forget(const char *name)
{
	for (struct file **at = &files; *at;) {
		struct file *file = *at;
		if (strcmp(file->name, name)) {
			at = &file->next;
			continue;
		}
		*at = file->next;
		synced(file, 0);
		free(file->old);
		for (int fd = 0; fd < FDS_MAX; fd++)
			if (by_fd[fd] == file)
				by_fd[fd] = NULL;
		free(file);
	}
}

static int open_watched(int at, const char *path, int flags, mode_t mode)
{
	begin();
	const char *name = at == AT_FDCWD || path[0] == '/' ? watched(path) : NULL;
	pthread_mutex_lock(&lock);
	if (name && !strcmp(name, ".powercut-image"))
		image();
	int fresh = name && access(path, F_OK);
	/* The old content of a file that is emptied on opening has to be kept first. */
	int empties = name && !fresh && (flags & O_TRUNC);
	int fd = at == AT_FDCWD ? real_open(path, flags & ~(empties ? O_TRUNC : 0), mode)
				: real_openat(at, path, flags, mode);
	int error = errno;
	struct stat st;
	if (fd >= 0 && fd < FDS_MAX && *folder && !fstat(fd, &st)) {
		by_fd[fd] = name && S_ISREG(st.st_mode) ? known(&st, name, fresh) : NULL;
		is_folder[fd] = S_ISDIR(st.st_mode) && !strcmp(path, folder);
		if (by_fd[fd] && empties) {
			keep(by_fd[fd], fd, 0, st.st_size);
			real_ftruncate(fd, 0);
		}
	}
	pthread_mutex_unlock(&lock);
	errno = error;
	return fd;
}

#define OPEN_MODE(flags, mode)                                    \
	mode_t mode = 0;                                          \
	if ((flags) & (O_CREAT | O_TMPFILE)) {                    \
		va_list rest;                                     \
		va_start(rest, flags);                            \
		mode = va_arg(rest, mode_t);                      \
		va_end(rest);                                     \
	}

int open(const char *path, int flags, ...)
{
	OPEN_MODE(flags, mode)
	return open_watched(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...)
{
	OPEN_MODE(flags, mode)
	return open_watched(AT_FDCWD, path, flags, mode);
}
int openat(int at, const char *path, int flags, ...)
{
	OPEN_MODE(flags, mode)
	return open_watched(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...)
{
	OPEN_MODE(flags, mode)
	return open_watched(at, path, flags, mode);
}

int close(int fd)
{
	begin();
	pthread_mutex_lock(&lock);
	if (fd >= 0 && fd < FDS_MAX) {
		by_fd[fd] = NULL;
		is_folder[fd] = 0;
	}
	int result = real_close(fd);
	pthread_mutex_unlock(&lock);
	return result;
}

static struct file *file_of(int fd)
{
	return fd >= 0 && fd < FDS_MAX ? by_fd[fd] : NULL;
}

ssize_t write(int fd, const void *bytes, size_t len)
{
	begin();
	if (!file_of(fd))
		return real_write(fd, bytes, len);
	pthread_mutex_lock(&lock);
	struct file *file = file_of(fd);
	off_t at = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
	if (file)
		keep(file, fd, at, at + len);
	ssize_t written = real_write(fd, bytes, len);
	if (file)
		operation();
	pthread_mutex_unlock(&lock);
	return written;
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at)
{
	begin();
	if (!file_of(fd))
		return real_pwrite(fd, bytes, len, at);
	pthread_mutex_lock(&lock);
	struct file *file = file_of(fd);
	if (file)
		keep(file, fd, at, at + len);
	ssize_t written = real_pwrite(fd, bytes, len, at);
	if (file)
		operation();
	pthread_mutex_unlock(&lock);
	return written;
}
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at)
{
	return pwrite64(fd, bytes, len, at);
}

/* A short count is a valid answer; callers go on with the rest. */
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at)
{
	return count > 0 ? pwrite64(fd, parts[0].iov_base, parts[0].iov_len, at) : 0;
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
	return pwritev64(fd, parts, count, at);
}

int ftruncate64(int fd, off_t size)
{
	begin();
	pthread_mutex_lock(&lock);
	struct file *file = file_of(fd);
	struct stat st;
	if (file && !fstat(fd, &st) && size < st.st_size)
		keep(file, fd, size, st.st_size);
	int result = real_ftruncate(fd, size);
	if (file)
		operation();
	pthread_mutex_unlock(&lock);
	return result;
}
int ftruncate(int fd, off_t size)
{
	return ftruncate64(fd, size);
}

static void folder_synced(void)
{
	char path[PATH_MAX], name[NAME_MAX + 1];
	for (struct file *file = files; file; file = file->next)
		file->fresh = 0;
	for (int i = 0; i < changes_len; i++) {
		snprintf(name, sizeof name, "%d", changes[i].number);
		path_of(path, folder, ".gone", name);
		if (!changes[i].to[0])
			real_unlink(path);
	}
	changes_len = 0;
}

static int sync_watched(int fd, int (*real)(int))
{
	begin();
	pthread_mutex_lock(&lock);
	struct file *file = file_of(fd);
	struct stat st;
	int result = 0;
	if (file) {
		operation();
		if (fail_at && operations >= fail_at) {
			/* Once: a second try would succeed, and prove nothing about what the first one dropped. */
			fail_at = 0;
			pthread_mutex_unlock(&lock);
			errno = EIO;
			return -1;
		}
		if (fstat(fd, &st))
			abort();
		synced(file, st.st_size);
	} else if (fd >= 0 && fd < FDS_MAX && is_folder[fd]) {
		operation();
		folder_synced();
	} else {
		result = real(fd);
	}
	pthread_mutex_unlock(&lock);
	return result;
}

int fsync(int fd)
{
	return sync_watched(fd, real_fsync);
}
int fdatasync(int fd)
{
	return sync_watched(fd, real_fdatasync);
}

static struct change *changed(void)
{
	if (changes_len == NAMES_MAX)
		abort();
	return memset(&changes[changes_len++], 0, sizeof *changes);
}

/* Keeps the file that has this name now, so that a cut can bring it back; answers its number. */
static int put_aside(const char *path)
{
	char shadow[PATH_MAX], number[NAME_MAX + 1];
	path_of(shadow, folder, ".gone", "");
	mkdir(shadow, 0700);
	snprintf(number, sizeof number, "%d", ++shadows);
	path_of(shadow, folder, ".gone", number);
	(void)!link(path, shadow);
	return shadows;
}

int unlink(const char *path)
{
	begin();
	pthread_mutex_lock(&lock);
	const char *name = watched(path);
	if (name && !access(path, F_OK)) {
		struct change *change = changed();
		change->number = put_aside(path);
		snprintf(change->from, sizeof change->from, "%s", name);
		forget(name);
	}
	int result = real_unlink(path);
	pthread_mutex_unlock(&lock);
	return result;
}

int rename(const char *from, const char *to)
{
	begin();
	pthread_mutex_lock(&lock);
	const char *before = watched(from), *after = watched(to);
	int replaces = after && !access(to, F_OK), number = 0;
	if (replaces) {
		forget(after);
		number = put_aside(to);
	}
	int result = real_rename(from, to);
	if (!result && before && after) {
		for (struct file *file = files; file; file = file->next) {
			if (strcmp(file->name, before))
				continue;
			snprintf(file->name, sizeof file->name, "%s", after);
			/* The name stands in the folder, with the old file or with this one. */
			file->fresh = file->fresh && !replaces;
		}
		struct change *change = changed();
		change->number = number;
		change->replaced = replaces;
		snprintf(change->from, sizeof change->from, "%s", replaces ? after : before);
		snprintf(change->to, sizeof change->to, "%s", replaces ? "" : after);
	}
	pthread_mutex_unlock(&lock);
	return result;
}
