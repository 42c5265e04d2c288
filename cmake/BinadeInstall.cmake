# Install rules and find_package(binade).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(BINADE_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/binade)

install(TARGETS binade EXPORT binade LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
# What only the library's own .cpp files include is not installed: kernels, and headers that use
# Eigen, CUDA or nlohmann, which a program that uses Binade need not have.
install(FILES ${PROJECT_SOURCE_DIR}/binade.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/binade)
foreach(room IN LISTS BINADE_ROOMS)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${room} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/binade
          FILES_MATCHING PATTERN "*.h" REGEX "/core/(kernels|cuda)$" EXCLUDE
          REGEX "/autograd/(graph|ops/common|ops/broadcast)\\.h$" EXCLUDE
          PATTERN "json_*.h" EXCLUDE)
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
install(FILES ${PROJECT_BINARY_DIR}/binadeConfig.cmake
              ${PROJECT_BINARY_DIR}/binadeConfigVersion.cmake
        DESTINATION ${BINADE_PACKAGE_DIR})
