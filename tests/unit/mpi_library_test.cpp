#include "remora/mpi_library.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "core/file.h"

namespace hobbes {
namespace {

const std::string mpi_programs = HOBBES_BUILD_DIR "/tests/programs/";

// A root file system with a program, and with that Open MPI below /usr/lib.
class MpiLibraryInARoot : public ::testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/hobbes-mpi-XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    root = folder;
    std::filesystem::create_directories(root + libraries);
    std::filesystem::create_directories(root + "/bin");
    std::filesystem::copy_file(mpi_programs + "plain-c", root + "/bin/rank");
  }
  void TearDown() override { std::filesystem::remove_all(root); }
  void install(const std::string& file) const {
    const std::string link = root + libraries + "/libmpi.so.40";
    const std::string target = file.front() == '/' ? root + file : root + libraries + "/" + file;
    ::unlink(link.c_str());
    std::filesystem::create_directories(target.substr(0, target.rfind('/')));
    if (target != link) {
      ASSERT_TRUE(replace_file(target, ""));
    }
    ASSERT_EQ(::symlink(file.c_str(), link.c_str()), 0);
  }
  std::string root;
  const std::string libraries = "/usr/lib/x86_64-linux-gnu";
};

TEST_F(MpiLibraryInARoot, ItsReleaseIsToldByTheFileThatTheProgramWouldGet) {
  for (const auto& [file, release] : {std::pair{"libmpi.so.40.20.4", "4.0"},
                                      {"libmpi.so.40.30.4", "4.1"},
                                      {"openmpi/lib/libmpi.so.40.40.7", "5.0"},
                                      {"/opt/libmpi.so.40.40.1", "5.0"},
                                      {"libmpi.so.40.90.0", ""}}) {
    install(file);
    auto library = mpi_library_of(root, "/bin/rank");
    ASSERT_TRUE(library) << file;
    EXPECT_EQ(library->name, "libmpi.so.40");
    EXPECT_EQ(library->open_mpi_release(), release) << file;
  }
}

TEST_F(MpiLibraryInARoot, AProgramWithoutItsLibraryStillTellsWhatItAsksFor) {
  auto library = mpi_library_of(root, "/bin/rank");
  ASSERT_TRUE(library);
  EXPECT_EQ(library->file, "");
  EXPECT_EQ(library->open_mpi_release(), "");
}

TEST_F(MpiLibraryInARoot, LinksThatLeadInACircleEndSomewhere) {
  install("libmpi.so.40");
  auto library = mpi_library_of(root, "/bin/rank");
  ASSERT_TRUE(library);
  EXPECT_EQ(library->open_mpi_release(), "");
}

TEST_F(MpiLibraryInARoot, LinksOfTheProgramStayInTheRoot) {
  install("libmpi.so.40.40.7");
  std::filesystem::create_directories(root + "/opt");
  ASSERT_EQ(::rename((root + "/bin/rank").c_str(), (root + "/opt/rank").c_str()), 0);
  ASSERT_EQ(::symlink("/opt/rank", (root + "/bin/rank").c_str()), 0);
  auto library = mpi_library_of(root, "/bin/rank");
  ASSERT_TRUE(library);
  EXPECT_EQ(library->open_mpi_release(), "5.0");
}

TEST(MpiLibrary, AnotherMpiIsNamedAsTheFamilyThatItIsOf) {
  auto library = mpi_library_of("/", mpi_programs + "other-mpi-rank");
  ASSERT_TRUE(library);
  EXPECT_EQ(library->name, "libmpich.so.12");
  EXPECT_EQ(library->open_mpi_release(), "");
  EXPECT_NE(library->text().find("MPICH"), std::string::npos);
}

TEST(MpiLibrary, WhatIsNoProgramOfMpiHasNone) {
  EXPECT_FALSE(mpi_library_of("/", "/bin/sh"));
  EXPECT_FALSE(mpi_library_of("/", "/etc/passwd"));
  EXPECT_FALSE(mpi_library_of("/", "/nonexistent"));
  EXPECT_FALSE(mpi_library_of("/", "/dev"));
}

}  // namespace
}  // namespace hobbes
