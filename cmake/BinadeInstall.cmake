# Install rules and find_package(binade).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(BINADE_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/binade)

install(TARGETS binade EXPORT binade LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
# Not installed: kernels, what is CUDA's, and headers whose first line begins with `// INTERNAL`. Only
# the library's own sources include those; they may use Eigen, CUDA or nlohmann, which a program that
# uses Binade need not have.
install(FILES ${PROJECT_SOURCE_DIR}/binade.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/binade)
foreach(room IN LISTS BINADE_ROOMS)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}
       ${PROJECT_SOURCE_DIR}/${room}/*.h)
  list(FILTER headers EXCLUDE REGEX "^core/(kernels|cuda)/")
  foreach(header IN LISTS headers)
    file(STRINGS ${PROJECT_SOURCE_DIR}/${header} first_line LIMIT_COUNT 1)
    if(NOT first_line MATCHES "^// INTERNAL")
      get_filename_component(folder ${header} DIRECTORY)
      install(FILES ${PROJECT_SOURCE_DIR}/${header}
              DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/binade/${folder})
    endif()
  endforeach()
endforeach()
install(EXPORT binade NAMESPACE binade:: DESTINATION ${BINADE_PACKAGE_DIR}
        FILE BinadeTargets.cmake)

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/binadeConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/binadeConfig.cmake
                              INSTALL_DESTINATION ${BINADE_PACKAGE_DIR}
                              PATH_VARS CMAKE_INSTALL_INCLUDEDIR)
# Before 1.0 a new minor version may change the API.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/binadeConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
# For builds without CMake. The paths are relative to the file, so the installed tree can be moved.
file(RELATIVE_PATH to_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
if(BINADE_HAVE_CUDA)
  set(have_cuda 1)
else()
  set(have_cuda 0)
endif()
configure_file(${CMAKE_CURRENT_LIST_DIR}/binade.pc.in ${PROJECT_BINARY_DIR}/binade.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/binade.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${PROJECT_BINARY_DIR}/binadeConfig.cmake
              ${PROJECT_BINARY_DIR}/binadeConfigVersion.cmake
        DESTINATION ${BINADE_PACKAGE_DIR})
